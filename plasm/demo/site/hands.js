// Catching, holding and throwing digits, with a pointer or with keys.

import { ONE, angleOf, corner, digitSize, velocityAt } from "./motion.js";
import { showArrows } from "./view.js";

const RECENT = 120; // Milliseconds of a drag, before it ends, that say where it goes.
const STILL = 5; // Pixels of the page that a hand moves without meaning it.
const TURN = Math.PI / 12;
const NUDGE = ONE / 12;

const clamp = (value) => Math.max(0, Math.min(ONE - 1, Math.round(value)));

/** The two handles over the digits. Asks for the digits with caught(), tells held(digits) and thrown(digits). */
export class Hands {
  constructor(screen, arrows, handlers) {
    this.screen = screen;
    this.arrows = arrows;
    this.handlers = handlers;
    this.handles = [...screen.querySelectorAll(".handle")];
    this.handles.forEach((handle, i) => {
      handle.addEventListener("pointerdown", (event) => this.#grab(event, handle, i));
      handle.addEventListener("keydown", (event) => this.#key(event, i));
    });
  }

  /** Put the handles over digits; none where there are none. Arrows while they are held. */
  show(digits, held) {
    const canvas = this.screen.querySelector("canvas");
    const { height, width } = canvas;
    const size = digitSize(height, width);
    const arrows = [];
    this.handles.forEach((handle, i) => {
      handle.hidden = !digits;
      if (!digits) return;
      const [top, left] = corner(digits[i].place, size, height, width);
      Object.assign(handle.style, {
        top: `${(100 * top) / height}%`,
        left: `${(100 * left) / width}%`,
        height: `${(100 * size) / height}%`,
        width: `${(100 * size) / width}%`,
      });
      handle.setAttribute("aria-label", `${digits[i].label}: arrow keys turn it, with Shift they move it, Enter throws it`);
      const angle = angleOf(digits[i].velocity);
      if (held) arrows.push({ x: (left + size / 2) / width, y: (top + size / 2) / height, angle });
    });
    showArrows(this.arrows, arrows);
  }

  #grab(event, handle, i) {
    if (event.button !== 0) return;
    event.preventDefault();
    handle.focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    const digits = [...this.handlers.caught()];
    const path = [{ x: event.clientX, y: event.clientY, time: event.timeStamp }];
    const from = digits[i].place;
    const box = this.screen.getBoundingClientRect();
    const share = parseFloat(handle.style.width) / 100;
    const shareDown = parseFloat(handle.style.height) / 100;
    this.handlers.held(digits);

    const moved = (next) => {
      path.push({ x: next.clientX, y: next.clientY, time: next.timeStamp });
      const [dx, dy] = [next.clientX - path[0].x, next.clientY - path[0].y];
      const down = from[0] + (dy / (box.height * (1 - shareDown))) * ONE;
      const right = from[1] + (dx / (box.width * (1 - share))) * ONE;
      const direction = this.#direction(path);
      digits[i] = { ...digits[i], place: [clamp(down), clamp(right)], velocity: direction ?? digits[i].velocity };
      this.handlers.held([...digits]);
    };
    const ended = () => {
      handle.removeEventListener("pointermove", moved);
      handle.removeEventListener("pointerup", ended);
      handle.removeEventListener("pointercancel", ended);
      this.handlers.thrown([...digits]);
    };
    handle.addEventListener("pointermove", moved);
    handle.addEventListener("pointerup", ended);
    handle.addEventListener("pointercancel", ended);
  }

  /** Velocity along the end of a drag, along all of it if it ended slowly; null if it was none. */
  #direction(path) {
    const last = path[path.length - 1];
    const recent = path.find(({ time }) => last.time - time <= RECENT);
    for (const first of [recent, path[0]]) {
      const [dx, dy] = [last.x - first.x, last.y - first.y];
      if (Math.hypot(dx, dy) >= STILL) return velocityAt(Math.atan2(dy, dx));
    }
    return null;
  }

  #key(event, i) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!steps && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const digits = [...this.handlers.caught()];
    if (!steps) {
      this.handlers.thrown(digits);
      return;
    }
    const { place, velocity } = digits[i];
    if (event.shiftKey) {
      digits[i] = { ...digits[i], place: place.map((value, axis) => clamp(value + NUDGE * steps[axis])) };
    } else {
      digits[i] = { ...digits[i], velocity: velocityAt(angleOf(velocity) + TURN * (steps[1] || steps[0])) };
    }
    this.handlers.held(digits);
  }
}
