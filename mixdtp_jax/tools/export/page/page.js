import { find, makeCard, onFiles, show, showResult, tell } from './common.js';

const settings = await (await fetch('settings.json')).json();
let worker;
let last = Promise.resolve(); // one picture after the other

/** Returns the pixels of a file: RGBA of 8 bits, upright, in sRGB. */
async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error('This browser cannot read it as a picture.');
  }
  const { width, height } = bitmap;
  if (width * height > settings.most_pixels) {
    const most = (settings.most_pixels / 1e6).toFixed(1);
    throw new Error(`${width} × ${height} pixels are more than a browser has ` +
      `memory for (${most} megapixels). The command mixdtp derain restores ` +
      'pictures of any size.');
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Starts the worker from a blob, which inherits this page's policy. */
function startWorker() {
  const script = `import ${JSON.stringify(new URL('worker.js', location).href)}`;
  const place = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  return new Worker(place, { type: 'module' });
}

/** Has the worker restore pixels. */
function restore({ data, width, height }) {
  worker ??= startWorker();
  return new Promise((done, fail) => {
    const giveUp = (reason) => {
      worker.terminate(); // and with it the memory that was too little
      worker = undefined;
      fail(new Error(`It could not be restored: ${reason}`));
    };
    worker.onerror = (event) => giveUp(event.message ?? 'no worker');
    worker.onmessage = (event) => {
      if (event.data.error) return giveUp(event.data.error);
      return done(new ImageData(event.data.data, width, height));
    };
    worker.postMessage({ data, width, height }, [data.buffer]);
  });
}

/** Returns a PNG of pixels. */
function encode(pixels) {
  const canvas = new OffscreenCanvas(pixels.width, pixels.height);
  canvas.getContext('2d').putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

/** Restores a file, and shows how it comes on. */
async function work(file, card) {
  const name = file.name || 'picture';
  show(card, 'Is being restored.');
  tell(`${name} is being restored.`);
  const start = performance.now();
  const pixels = await decode(file);
  const { width, height } = pixels;
  const rainy = await encode(pixels);
  const restored = await encode(await restore(pixels));
  const before = URL.createObjectURL(rainy);
  const after = URL.createObjectURL(restored);
  const places = { before, after, restored: after };
  const target = `${name.replace(/\.[^.]*$/, '')}_derained.png`;
  showResult(card, name, { width, height, ...places }, target);
  const seconds = Math.ceil((performance.now() - start) / 1000);
  show(card, `${width} × ${height} pixels, restored in ${seconds} s.`);
  tell(`${name} is restored.`);
}

/** Takes what was chosen, dropped or pasted. */
function take(files) {
  for (const file of files) {
    const card = makeCard(file.name || 'picture');
    find('#pictures').prepend(card);
    show(card, 'Waits for its turn.');
    last = last.then(() => work(file, card)).catch((error) => {
      show(card, error.message, true);
      tell(error.message);
    }).then(() => { find('progress', card).hidden = true; });
  }
  find('#results').hidden = false;
}

find('#about').textContent =
  `Network: ${settings.name}. Licence of its weights: ${settings.licence}`;
onFiles(take);
