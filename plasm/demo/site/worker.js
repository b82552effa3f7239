// Runs the model, so that the page never waits for it.
//
// In:  {type: "load", model} and {type: "predict", id, clip, numFrames}, clip being T * C * H * W floats in [0, 1].
// Out: {type: "loaded", threads, milliseconds}, {type: "frames", id, first, frames, milliseconds}, and
//      {type: "failed", what, reason}, what being "runtime", "model" or "forecast".

let ort = null;
let session = null;
let model = null;
let latest = 0;

/** Why the model does not run here. */
class Failure extends Error {
  constructor(what, reason) {
    super(reason);
    this.what = what;
  }
}

async function loadRuntime() {
  if (typeof WebAssembly !== "object") throw new Failure("runtime", "this browser has no WebAssembly, or has it switched off");
  try {
    ort = await import("./ort/ort.wasm.min.mjs");
  } catch (error) {
    throw new Failure("runtime", error.message);
  }
  // It has to be absolute: the module resolves it against another base in a worker.
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  // Half of the processors: they wait for each other, and the page needs one, too.
  const half = Math.floor((navigator.hardwareConcurrency || 1) / 2);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.max(1, Math.min(4, half)) : 1;
  ort.env.logLevel = "error";
}

async function fetchModel({ file, size, sha256 }) {
  let response;
  try {
    response = await fetch(file);
  } catch (error) {
    throw new Failure("model", `${file} does not come: ${error.message}`);
  }
  if (!response.ok) throw new Failure("model", `${file} does not come: the server says ${response.status}`);
  const bytes = await response.arrayBuffer();
  if (bytes.byteLength !== size) throw new Failure("model", `${file} has ${bytes.byteLength} bytes, not ${size}`);
  // Browsers hash only on https and on this very machine.
  if (self.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== sha256) throw new Failure("model", `${file} is damaged: its sha256 is not the one in models.json`);
  }
  return bytes;
}

async function load(wanted) {
  const start = performance.now();
  await session?.release();
  session = null;
  const bytes = await fetchModel(wanted);
  if (!ort) await loadRuntime();
  try {
    session = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
  } catch (error) {
    // The first session also starts the runtime: what fails there is told by the name of its file.
    throw new Failure(/wasm/i.test(error.message) ? "runtime" : "model", error.message);
  }
  model = wanted;
  self.postMessage({ type: "loaded", threads: ort.env.wasm.numThreads, milliseconds: performance.now() - start });
}

/** Lets messages in: a new throw ends an old forecast. */
const breathe = () => new Promise((resolve) => setTimeout(resolve));

async function predict({ id, clip, numFrames }) {
  latest = id;
  const { in_frames: inFrames, channels, height, width } = model;
  const pixels = channels * height * width;
  const dims = [1, inFrames, channels, height, width];
  let window = clip;
  for (let first = 0; first < numFrames; ) {
    await breathe();
    if (latest !== id) return;
    const start = performance.now();
    const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", window, dims) };
    const output = (await session.run(feeds))[session.outputNames[0]];
    const made = output.data;
    // Longer horizons feed the last T frames back, as model.predict does.
    const joined = new Float32Array(window.length + made.length);
    joined.set(window);
    joined.set(made, window.length);
    window = joined.slice(-inFrames * pixels);
    const count = Math.min(made.length / pixels, numFrames - first);
    const frames = made.slice(0, count * pixels);
    output.dispose();
    const milliseconds = performance.now() - start;
    self.postMessage({ type: "frames", id, first, frames, milliseconds }, [frames.buffer]);
    first += count;
  }
}

// One after the other: a forecast waits for its model.
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  latest = data.id ?? 0; // Whatever comes, an older forecast ends.
  const work = data.type === "load" ? () => load(data.model) : () => (session ? predict(data) : undefined);
  queue = queue.then(work).catch((error) => {
    const what = error instanceof Failure ? error.what : "forecast";
    self.postMessage({ type: "failed", what, reason: String(error.message ?? error) });
  });
};
