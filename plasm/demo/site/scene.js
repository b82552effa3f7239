// What is forecast: a scene of T frames, what truly follows, and what the model makes of it.

import { squaredError } from "./view.js";
import { ONE, draw, states, velocityAt } from "./motion.js";

export const MAX_HORIZON = 40;

const unit = (bytes) => Float32Array.from(bytes, (value) => value / 255);

/** A scene. truth: its frames, [C * H * W floats in [0, 1]], the first T of them the input. */
export class Scene {
  constructor(truth, model) {
    this.truth = truth;
    this.model = model;
    this.forecast = [];
    this.errors = [];
    this.still = truth.slice(model.in_frames).map((frame) => squaredError(truth[model.in_frames - 1], frame));
  }

  /** The input as one array, T * C * H * W. */
  clip() {
    const pixels = this.truth[0].length;
    const clip = new Float32Array(this.model.in_frames * pixels);
    this.truth.slice(0, this.model.in_frames).forEach((frame, t) => clip.set(frame, t * pixels));
    return clip;
  }

  /** Forecast frames from a number on, one after the other in one array. */
  receive(first, frames) {
    const pixels = this.truth[0].length;
    for (let i = 0; i * pixels < frames.length; i += 1) {
      const frame = frames.slice(i * pixels, (i + 1) * pixels);
      const truth = this.truth[this.model.in_frames + first + i];
      this.forecast[first + i] = frame;
      this.errors[first + i] = truth && squaredError(frame, truth);
    }
  }
}

/** A scene of digits in motion; positions[t] are the digits of frame t, positions[0] and before those before the first. */
export function digitScene(digits, model) {
  const positions = states(digits, model.in_frames + MAX_HORIZON);
  const scene = new Scene(positions.slice(1).map((moved) => unit(draw(moved, model))), model);
  scene.positions = positions;
  return scene;
}

/** Digits before they are thrown: nothing follows yet. */
export function heldScene(digits, model) {
  const scene = new Scene([], model);
  scene.positions = [digits];
  scene.before = unit(draw(digits, model));
  return scene;
}

/** A scene of frames of the user's own, C x H x W bytes each. */
export function clipScene(frames, model) {
  return new Scene(frames.map(unit), model);
}

/** A digit somewhere, on its way to somewhere. */
export function throwAnywhere(digit) {
  const place = [0, 1].map(() => Math.floor(Math.random() * ONE));
  return { ...digit, place, velocity: velocityAt(2 * Math.PI * Math.random()) };
}
