import { find, makeCard, onFiles, show, showResult, tell } from './common.js';

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

/** Tells everybody about an error that belongs to no picture. */
function complain(text) {
  find('#hint').textContent = text;
  find('#hint').className = 'error';
  tell(text);
}

/** Adds the card of a picture above others, and shows how it comes on. */
async function add(file, others) {
  const work = { name: file.name || 'picture', stop: new AbortController() };
  const card = work.card = makeCard(work.name);
  const button = find('.remove', card);
  button.setAttribute('aria-label', `Stop ${work.name}`);
  button.onclick = () => remove(work);
  find('#pictures').insertBefore(card, others);
  show(card, 'Waits to be sent.');
  try {
    const sent = sending.then(() => send(file, work));
    sending = sent.catch(() => {});
    await sent;
    finish(work, await follow(work));
  } catch (error) {
    if (work.stop.signal.aborted) return;
    show(card, error.message, true);
    tell(error.message);
  }
  find('progress', card).hidden = true;
  button.textContent = 'Remove';
  button.setAttribute('aria-label', `Remove ${work.name}`);
}

/** Sends a picture, and notes its key. */
async function send(file, work) {
  work.stop.signal.throwIfAborted();
  show(work.card, 'Is being sent.');
  tell(`${work.name} is being sent.`);
  if (file.size > settings.most_bytes) {
    const most = Math.floor(settings.most_bytes / 1e6);
    throw new Error(`${work.name} is larger than ${most} MB`);
  }
  const words = new URLSearchParams({
    name: work.name,
    weights: find('#weights').value,
    memory: find('#memories').value,
  });
  const sent = await ask(`pictures?${words}`, {
    method: 'POST', body: file, signal: work.stop.signal,
  });
  work.key = sent.key;
  keys.add(sent.key);
}

/** Shows the progress until the picture is done; returns its facts. */
async function follow({ card, key, stop }) {
  for (let lost = 0; ;) {
    stop.signal.throwIfAborted();
    try {
      const now = await ask(`pictures/${key}`);
      lost = 0;
      if (now.state === 'done') return now;
      if (now.error) throw new Error(now.error);
      if (now.state === 'waiting') {
        show(card, `Waits for its turn: ${now.ahead} before it.`);
      } else if (now.progress) {
        find('progress', card).value = now.progress;
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
function finish({ card, name, key }, { width, height, ...facts }) {
  const sides = ['before', 'after', 'restored'];
  const places = sides.map((side) => [side, `pictures/${key}/${side}`]);
  const result = { width, height, ...Object.fromEntries(places) };
  showResult(card, name, result, facts.name);
  const lost = facts.lost ? ` The file is without ${facts.lost}.` : '';
  const size = `${width} × ${height} pixels`;
  show(card, `${size}, restored in ${facts.seconds} s.${lost}`);
  tell(`${name} is restored.`);
}

/** Stops the work on a picture, and removes it. */
function remove({ card, name, key, stop }) {
  stop.abort();
  if (key) drop(key);
  card.remove();
  tell(`${name} is removed.`);
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
  onFiles(take);
  for (const button of document.querySelectorAll('[data-file]')) {
    button.onclick = async () => {
      const { file } = button.dataset;
      const blob = await (await fetch(`examples/${file}`)).blob();
      take([new File([blob], file)]);
    };
  }
  addEventListener('pagehide', () => keys.forEach(drop));
  // Its pictures are gone.
  addEventListener('pageshow', (event) => event.persisted && location.reload());
}

start().catch((error) => complain(error.message));
