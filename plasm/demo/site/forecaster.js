// The page's side of the worker.

/** Loads models and forecasts in a worker. Handlers: onLoaded, onFrames, onFailed. */
export class Forecaster {
  constructor(handlers) {
    this.handlers = handlers;
    this.id = 0;
    this.ready = false;
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#receive(data);
    // A worker that cannot be read at all has no message of its own.
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.#receive({ type: "failed", what: "runtime", reason: event.message || "worker.js does not load" });
    };
  }

  #receive(data) {
    if (data.type === "loaded") {
      this.ready = true;
      this.handlers.onLoaded(data);
    } else if (data.type === "failed") {
      this.ready = false;
      this.handlers.onFailed(data);
    } else if (data.id === this.id) {
      this.handlers.onFrames(data);
    }
  }

  load(model) {
    this.ready = false;
    this.cancel();
    this.worker.postMessage({ type: "load", model });
  }

  predict(clip, numFrames) {
    this.id += 1;
    this.worker.postMessage({ type: "predict", id: this.id, clip, numFrames });
  }

  /** What still comes of an older forecast is left aside. */
  cancel() {
    this.id += 1;
  }
}
