import * as ort from './ort.wasm.min.mjs';

ort.env.wasm.wasmPaths = new URL('./', import.meta.url).href;
const network = new URL('network.onnx', import.meta.url).href;
let session;

/** Restores RGBA pixels of 8 bits in place; alpha stays. */
async function restore({ data, width, height }) {
  session ??= await ort.InferenceSession.create(network);
  const count = width * height;
  const rainy = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) rainy[c * count + i] = data[4 * i + c] / 255;
  }
  const image = new ort.Tensor('float32', rainy, [1, 3, height, width]);
  const { restored } = await session.run({ rainy: image });
  const values = restored.data;
  if (!values.every(Number.isFinite)) {
    throw new Error('the network gives values that are not finite.');
  }
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) {
      data[4 * i + c] = Math.round(255 * values[c * count + i]);
    }
  }
  return data;
}

self.onmessage = async (event) => {
  try {
    const data = await restore(event.data);
    self.postMessage({ data }, [data.buffer]);
  } catch (error) {
    self.postMessage({ error: String(error.message ?? error) });
  }
};
