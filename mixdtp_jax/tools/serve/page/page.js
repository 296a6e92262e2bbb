'use strict';

const find = (name, where = document) => where.querySelector(name);
const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));
const silent = 'the server does not answer: is it still running?';
const keys = new Set(); // of pictures on the server
let settings;
let sending = Promise.resolve(); // one picture after the other

/** Asks the server; an error has a message for the reader. */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error(silent), { lost: true });
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** Tells a screen reader something. */
function tell(text) {
  find('#news').textContent = text;
}

/** Tells everybody about an error that belongs to no picture. */
function complain(text) {
  find('#hint').textContent = text;
  find('#hint').className = 'error';
  tell(text);
}

/** Adds the card of a picture above others, and shows how it comes on. */
async function add(file, others) {
  const item = find('#picture').content.cloneNode(true).firstElementChild;
  const card = { name: file.name || 'picture', stop: new AbortController() };
  for (const part of ['h3', '.state', 'progress', '.slider', '.remove',
    '.download', '.before', '.after', 'input']) {
    card[part] = find(part, item);
  }
  card.h3.textContent = card.name;
  card['.remove'].setAttribute('aria-label', `Stop ${card.name}`);
  card.progress.setAttribute('aria-label', `Progress of ${card.name}`);
  card['.remove'].onclick = () => remove(item, card);
  find('#pictures').insertBefore(item, others);
  show(card, 'Waits to be sent.');
  try {
    const sent = sending.then(() => send(file, card));
    sending = sent.catch(() => {});
    const key = await sent;
    finish(card, key, await follow(card, key));
  } catch (error) {
    if (card.stop.signal.aborted) return;
    show(card, error.message, true);
    tell(error.message);
  }
  card.progress.hidden = true;
  card['.remove'].textContent = 'Remove';
  card['.remove'].setAttribute('aria-label', `Remove ${card.name}`);
}

function show(card, text, bad = false) {
  card['.state'].textContent = text;
  card['.state'].classList.toggle('error', bad);
}

/** Sends a picture; returns its key. */
async function send(file, card) {
  card.stop.signal.throwIfAborted();
  show(card, 'Is being sent.');
  tell(`${card.name} is being sent.`);
  if (file.size > settings.most_bytes) {
    const most = Math.floor(settings.most_bytes / 1e6);
    throw new Error(`${card.name} is larger than ${most} MB`);
  }
  const words = new URLSearchParams({
    name: card.name,
    weights: find('#weights').value,
    memory: find('#memories').value,
  });
  const sent = await ask(`pictures?${words}`, {
    method: 'POST', body: file, signal: card.stop.signal,
  });
  card.key = sent.key;
  keys.add(sent.key);
  return sent.key;
}

/** Shows the progress until the picture is done; returns its facts. */
async function follow(card, key) {
  for (let lost = 0; ;) {
    card.stop.signal.throwIfAborted();
    try {
      const now = await ask(`pictures/${key}`);
      lost = 0;
      if (now.state === 'done') return now;
      if (now.error) throw new Error(now.error);
      if (now.state === 'waiting') {
        show(card, `Waits for its turn: ${now.ahead} before it.`);
      } else if (now.progress) {
        card.progress.value = now.progress;
        show(card, `Is being restored: ${Math.floor(100 * now.progress)}%.`);
      } else {
        show(card, 'The network is being prepared.');
      }
    } catch (error) {
      // A phone may lose its network for a moment.
      if (!error.lost || ++lost > 20) throw error;
    }
    await pause(0.4);
  }
}

/** Shows the result. */
function finish(card, key, facts) {
  const place = `pictures/${key}`;
  const style = card['.slider'].style;
  style.setProperty('--wide', `${facts.width}px`);
  style.setProperty('--ratio', facts.width / facts.height);
  card['.before'].src = `${place}/before`;
  card['.before'].alt = `${card.name}, before`;
  card['.after'].src = `${place}/after`;
  card['.after'].alt = `${card.name}, after`;
  card.input.setAttribute('aria-label', `Before and after: ${card.name}`);
  card.input.oninput = () => split(card);
  split(card);
  card['.slider'].hidden = false;
  card['.download'].href = `${place}/restored`;
  card['.download'].download = facts.name;
  card['.download'].setAttribute('aria-label', `Download ${facts.name}`);
  card['.download'].hidden = false;
  const lost = facts.lost ? ` The file is without ${facts.lost}.` : '';
  const size = `${facts.width} × ${facts.height} pixels`;
  show(card, `${size}, restored in ${facts.seconds} s.${lost}`);
  tell(`${card.name} is restored.`);
}

function split(card) {
  const part = card.input.value;
  card['.slider'].style.setProperty('--split', `${part}%`);
  card.input.setAttribute('aria-valuetext',
    `${part}% before, ${100 - part}% after`);
}

/** Stops the work on a picture, and removes it. */
function remove(item, card) {
  card.stop.abort();
  if (card.key) drop(card.key);
  item.remove();
  tell(`${card.name} is removed.`);
  const left = find('#pictures').children.length;
  find('#results').hidden = !left;
  find(left ? '#pictures-title' : '#file').focus();
}

function drop(key) {
  keys.delete(key);
  const how = { method: 'DELETE', keepalive: true };
  fetch(`pictures/${key}`, how).catch(() => {});
}

/** Takes what was chosen, dropped or pasted. */
function take(files) {
  if (!files.length) return complain('that was no picture');
  const others = find('#pictures').firstChild;
  for (const file of files) add(file, others);
  find('#results').hidden = false;
  find('#results').scrollIntoView();
}

async function start() {
  settings = await ask('settings');
  for (const name of ['weights', 'memories']) {
    find(`#${name}`).append(...settings[name].map((text) => new Option(text)));
  }
  find('#file').onchange = (event) => {
    take(event.target.files);
    event.target.value = ''; // the same file may be chosen again
  };
  for (const button of document.querySelectorAll('[data-file]')) {
    button.onclick = async () => {
      const { file } = button.dataset;
      const blob = await (await fetch(`examples/${file}`)).blob();
      take([new File([blob], file)]);
    };
  }
  addEventListener('paste', (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files);
  });
  for (const name of ['dragover', 'dragleave', 'drop']) {
    addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle('over', name === 'dragover');
      if (name === 'drop') take(event.dataTransfer.files);
    });
  }
  addEventListener('pagehide', () => keys.forEach(drop));
  // Its pictures are gone.
  addEventListener('pageshow', (event) => event.persisted && location.reload());
}

start().catch((error) => complain(error.message));
