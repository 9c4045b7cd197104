"""What is asked of a page as it stands: is every text read easily, has every control a name and room for a thumb.

Each is a script for `Page.evaluate` that returns a line for everything that is wrong.
"""

from __future__ import annotations

SEEN = """
  const seen = (it) => it.checkVisibility({opacityProperty: true, visibilityProperty: true})
    && it.getBoundingClientRect().width > 1;
  const told = (it) => `<${it.tagName.toLowerCase()} class="${it.className.baseVal ?? it.className}"> in `
    + `"${(it.closest('.block')?.textContent ?? '').trim().slice(0, 40)}"`;
"""

# WCAG 2: 4.5 to 1, for large letters 3 to 1.
CONTRAST = f"""() => {{ {SEEN}
  const canvas = Object.assign(document.createElement('canvas'), {{width: 1, height: 1}});
  const paint = canvas.getContext('2d', {{willReadFrequently: true}});
  const parse = (text) => {{
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = text;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }};
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const upwards = function* (it) {{ for (; it; it = it.parentElement) yield getComputedStyle(it); }};
  const ground = (it) => {{
    const layers = [];
    for (const style of upwards(it)) {{
      layers.push(parse(style.backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }}
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  }};
  const light = (colour) => {{
    const [r, g, b] = colour.map((v) => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  }};
  const found = new Set();
  const look = (it, colour, text) => {{
    const below = ground(it), letters = parse(colour), style = getComputedStyle(it);
    for (const {{opacity}} of upwards(it)) letters[3] *= opacity;
    const [low, high] = [light(over(letters, below)), light(below)].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = (high + .05) / (low + .05);
    if (ratio < (large ? 3 : 4.5)) found.add(`${{ratio.toFixed(2)}} "${{text.trim().slice(0, 40)}}" ${{told(it)}}`);
  }};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {{
    const {{data, parentElement: it}} = texts.currentNode;
    const silent = it.matches('script, style, noscript') || it.closest(':disabled');
    if (data.trim() && !silent && seen(it)) look(it, getComputedStyle(it).color, data);
  }}
  for (const it of document.querySelectorAll('textarea, input:not([type])')) {{
    if (it.placeholder && !it.value && seen(it)) look(it, getComputedStyle(it, '::placeholder').color, it.placeholder);
  }}
  return [...found];
}}"""

# "Textbox" and the like are what Gradio calls a component that nobody has named.
NAMES = f"""() => {{ {SEEN}
  const texts = (its) => [...its].map((it) => it?.textContent ?? '').join(' ');
  const named = (it) => (it.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id));
  const name = (it) => texts(named(it)).trim() || it.getAttribute('aria-label') || texts(it.labels ?? []).trim()
    || it.title
    || (it.matches('button, a, summary, [role]') && (it.textContent.trim() || it.querySelector('img[alt]')?.alt));
  const controls = 'input, textarea, select, button, summary, a[href], canvas, [role="button"], [tabindex="0"]';
  return [...document.querySelectorAll(controls)].filter(seen)
    .filter((it) => ['', 'Textbox', 'Dropdown', 'Radio', 'Checkbox'].includes(name(it) || '')).map(told);
}}"""

SMALL = f"""() => {{ {SEEN}
  return [...document.querySelectorAll('button, a[href], summary, .chips label')].filter(seen)
    .filter((it) => Math.round(it.getBoundingClientRect().height) < 40)
    .map((it) => `${{Math.round(it.getBoundingClientRect().height)}} px "${{it.textContent.trim()}}" ${{told(it)}}`);
}}"""

WIDE = (
    "() => document.documentElement.scrollWidth > innerWidth ? [`${document.documentElement.scrollWidth} px wide`] : []"
)

# What shows that a control has the focus: an outline, of its own or of the label round it.
FOCUS = """() => {
  const it = document.activeElement, outlined = [it, it.closest('label')].filter(Boolean).some((one) => {
    const style = getComputedStyle(one);
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
  });
  const name = it.getAttribute('aria-label') || it.labels?.[0]?.textContent || it.textContent || it.id;
  return [name.trim(), outlined];
}"""
