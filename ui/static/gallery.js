// The cards of the gallery: which are marked, what is asked of them, and the small pictures that are still to be made.
const marked = new Set();
const boxes = () => [...element.querySelectorAll('.pick input')];
const show = () => {
  const there = boxes();
  for (const id of [...marked]) if (!there.some((box) => box.value === id)) marked.delete(id);
  for (const box of there) {
    box.checked = marked.has(box.value);
    box.closest('.card').classList.toggle('marked', box.checked);
  }
  const bar = element.querySelector('.bulk');
  if (!bar) return;
  bar.classList.toggle('on', marked.size > 0);
  bar.querySelector('.count').textContent = `${marked.size} selected`;
};
const ask = {
  all: () => { for (const box of boxes()) marked.add(box.value); show(); },
  none: () => { marked.clear(); show(); },
  download: (ids) => trigger('download', {ids, plain: element.querySelector('.plain input').checked}),
  star: (ids) => trigger('like', {ids, starred: true}),
  delete: (ids) => {
    const what = ids.length === 1 ? 'this result and its files' : `${ids.length} results and their files`;
    if (window.confirm(`Delete ${what}?`)) trigger('delete', {ids});
  },
};
element.addEventListener('change', (event) => {
  if (!event.target.closest('.pick')) return;
  if (event.target.checked) marked.add(event.target.value); else marked.delete(event.target.value);
  show();
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.open) {
    window.sgdiffScroll = window.scrollY;
    trigger('select', {job: button.dataset.open, index: Number(button.dataset.index)});
  } else if (button.dataset.star) {
    trigger('like', {ids: [button.dataset.star], starred: button.getAttribute('aria-pressed') !== 'true'});
  } else if (button.dataset.ask) ask[button.dataset.ask]([...marked]);
});
// A few at a time, the first ones first; the server makes each once.
let turn = 0;
const filled = (place, found) => {
  place.classList.remove('wait');
  if (!found) {
    place.classList.add('gone');
    place.textContent = 'The file is gone';
    return;
  }
  const image = new Image();
  image.alt = '';
  image.src = found;
  place.replaceChildren(image);
};
const fill = async () => {
  const mine = ++turn;
  for (;;) {
    const places = [...element.querySelectorAll('[data-small]')].slice(0, 8);
    if (!places.length || mine !== turn) return;
    const wishes = places.map((place) => place.dataset.small);
    for (const place of places) delete place.dataset.small;
    const found = await server.small(wishes).catch(() => []);
    places.forEach((place, i) => filled(place, found[i]));
  }
};
watch('value', () => { show(); fill(); });
fill();
