// What the forms are set to, kept in the browser by tab and model: written shortly after a change, read by the server
// when the page is loaded, see ui/kept.py. Nothing is written before the forms show what was kept.
(() => {
  const KEY = 'sgdiff-forms', SOON_MS = 250, MODELS = 4, LONGEST = 32000;
  const waiting = {};
  const read = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY));
      return kept && typeof kept === 'object' && !Array.isArray(kept) ? kept : {};
    } catch { return {}; }
  };
  const write = (tab) => {
    const model = document.querySelector('[data-kept-for]')?.dataset.keptFor, values = waiting[tab]?.values;
    clearTimeout(waiting[tab]?.timer);
    delete waiting[tab];
    if (!model || !values) return;
    const kept = read(), own = new Map(Object.entries(kept[tab] || {}));
    own.delete(model);
    own.set(model, values); // the newest last
    kept[tab] = Object.fromEntries([...own].slice(-MODELS));
    try { localStorage.setItem(KEY, JSON.stringify(kept)); } catch { /* private windows keep nothing */ }
  };
  window.sgdiffKept = () => JSON.stringify(read());
  window.sgdiffKeep = (tab, names, values) => {
    clearTimeout(waiting[tab]?.timer);
    const fits = (value) => typeof value !== 'string' || value.length <= LONGEST;
    const kept = Object.fromEntries(names.map((name, i) => [name, values[i]]).filter(([, value]) => fits(value)));
    waiting[tab] = {values: kept, timer: setTimeout(() => write(tab), SOON_MS)};
    return [];
  };
  window.addEventListener('pagehide', () => Object.keys(waiting).forEach(write));
})();
