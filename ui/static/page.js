// What the keys do, light and dark, files dropped anywhere, the clipboard. Everything is found by class or data attribute.
(() => {
  const dark = () => document.body.classList.contains('dark');
  const remembered = () => { try { return localStorage.getItem('sgdiff-dark'); } catch { return null; } };
  const apply = (on) => {
    document.body.classList.toggle('dark', on);
    document.documentElement.style.colorScheme = on ? 'dark' : 'light';
  };
  // What Gradio draws without a name for those who hear the page.
  const name = () => {
    for (const canvas of document.querySelectorAll('.painter canvas:not([aria-label])')) {
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', 'The picture, to paint on');
    }
  };
  const observer = new MutationObserver(name);
  const start = () => {
    const manifest = document.querySelector('link[rel="manifest"]');
    if (manifest) manifest.href = './manifest.json'; // a proxy may have put the page below a prefix
    const kept = remembered();
    if (kept !== null) apply(kept === '1');
    observer.observe(document.body, {childList: true, subtree: true});
  };
  const visible = (element) => element.offsetParent !== null && !element.disabled;
  const press = (selector) => {
    const within = document.querySelector('dialog[open]') || document;
    const button = [...within.querySelectorAll(selector)].find(visible);
    if (button) button.click();
    return Boolean(button);
  };
  document.addEventListener('click', (event) => {
    if (!event.target.closest('[data-dark]')) return;
    const on = !dark();
    apply(on);
    try { localStorage.setItem('sgdiff-dark', on ? '1' : '0'); } catch { /* private windows keep nothing */ }
  });
  // Where the columns stand below each other, what was asked for is out of sight: show where it appears.
  document.addEventListener('click', (event) => {
    const run = event.target.closest('.workspace button.run');
    if (run && window.innerWidth <= 768) {
      run.closest('.workspace').querySelector('.outcome')?.scrollIntoView({behavior: 'smooth', block: 'start'});
    }
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      // A field tells the server its value when it loses focus or shortly after a key: run once it has.
      event.preventDefault();
      event.stopPropagation();
      setTimeout(() => press('button.run'), 60);
    } else if (event.key === 'Escape' && !document.querySelector('[aria-expanded="true"]')) {
      press('button.cancel');
    }
  }, true);
  // A file that is dropped anywhere but where files are taken anyway brings its settings.
  const takes = (target) => target instanceof Element && target.closest('.block:has(input[type="file"])');
  let ours = false; // a picture of the page itself is dragged
  const brings = (event) => !ours && event.dataTransfer && [...event.dataTransfer.types].includes('Files')
    && !takes(event.target) && !document.querySelector('dialog[open]');
  const dropping = (on) => document.body.classList.toggle('dropping', on);
  document.addEventListener('dragstart', () => { ours = true; }, true);
  document.addEventListener('dragend', () => { ours = false; }, true);
  document.addEventListener('dragover', (event) => {
    const on = brings(event);
    if (on) event.preventDefault();
    dropping(on);
  }, true);
  document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) dropping(false); }, true);
  document.addEventListener('drop', (event) => {
    dropping(false);
    if (!brings(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const input = window.sgdiffDropped();
    if (!input || !event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  }, true);
  window.sgdiffDropped = () => document.querySelector('#dropped').previousElementSibling;
  window.sgdiffCopy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement('textarea');
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
  };
  if (document.body) start(); else document.addEventListener('DOMContentLoaded', start);
  window.addEventListener('load', start);
})();
