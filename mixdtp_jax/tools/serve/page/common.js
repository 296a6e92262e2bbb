/* What the pages of mixdtp serve and of mixdtp export --format web share. */

export const find = (name, where = document) => where.querySelector(name);

/** Tells a screen reader something. */
export function tell(text) {
  find('#news').textContent = text;
}

/** Makes the card of a picture, to be put into the page. */
export function makeCard(name) {
  const card = find('#picture').content.cloneNode(true).firstElementChild;
  find('h3', card).textContent = name;
  find('progress', card).setAttribute('aria-label', `Progress of ${name}`);
  return card;
}

/** Shows what becomes of a picture. */
export function show(card, text, bad = false) {
  find('.state', card).textContent = text;
  find('.state', card).classList.toggle('error', bad);
}

/** Shows a result, whose addresses are `before`, `after` and `restored`. */
export function showResult(card, name, { width, height, ...places }, file) {
  const slider = find('.slider', card);
  slider.style.setProperty('--wide', `${width}px`);
  slider.style.setProperty('--ratio', width / height);
  for (const side of ['before', 'after']) {
    find(`.${side}`, card).src = places[side];
    find(`.${side}`, card).alt = `${name}, ${side}`;
  }
  const range = find('input', card);
  range.setAttribute('aria-label', `Before and after: ${name}`);
  range.oninput = () => {
    const part = range.value;
    slider.style.setProperty('--split', `${part}%`);
    range.setAttribute('aria-valuetext',
      `${part}% before, ${100 - part}% after`);
  };
  range.oninput();
  slider.hidden = false;
  const link = find('.download', card);
  link.href = places.restored;
  link.download = file;
  link.setAttribute('aria-label', `Download ${file}`);
  link.hidden = false;
}

/** Calls `take` with the files that are chosen, pasted or dropped. */
export function onFiles(take) {
  find('#file').onchange = (event) => {
    take([...event.target.files]);
    event.target.value = ''; // the same file may be chosen again
  };
  addEventListener('paste', (event) => {
    const { files } = event.clipboardData;
    if (files.length) take([...files]);
  });
  for (const name of ['dragover', 'dragleave', 'drop']) {
    addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle('over', name === 'dragover');
      if (name === 'drop') take([...event.dataTransfer.files]);
    });
  }
}
