// The dialog that gives a digit: a real one of MNIST, or one drawn by hand.

import { normalize, paint } from "./digits.js";
import { DIGIT_SIZE } from "./motion.js";

const COLUMNS = 10;

/** The dialog, with digits as loadDigits gives them. */
export class Picker {
  constructor(dialog, digits) {
    this.dialog = dialog;
    this.digits = digits;
    this.buttons = digits.map((digit) => this.#choice(digit));
    const list = dialog.querySelector("#choices");
    list.replaceChildren(...this.buttons);
    list.addEventListener("keydown", (event) => this.#move(event));
    this.pad = new Pad(dialog.querySelector("#pad"), dialog.querySelector("#pad-use"));
    dialog.querySelector("#pad-clear").addEventListener("click", () => this.pad.clear());
    dialog.querySelector("#pad-use").addEventListener("click", () => {
      const image = normalize(this.pad.canvas);
      if (image) this.#done({ image, label: "drawn digit" });
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  /** Ask for a digit; chosen({image, label}) is called if one is given. */
  choose(title, current, chosen) {
    this.chosen = chosen;
    this.dialog.querySelector("#picker-title").textContent = title;
    const found = this.digits.findIndex((digit) => digit.image === current.image);
    this.buttons.forEach((button, i) => button.setAttribute("aria-selected", String(i === found)));
    this.pad.clear();
    this.dialog.showModal();
    this.#focus(Math.max(0, found));
  }

  #done(digit) {
    this.dialog.close();
    this.chosen(digit);
  }

  #choice(digit) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "option");
    button.setAttribute("aria-label", digit.label);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = DIGIT_SIZE;
    paint(canvas, digit.image);
    button.append(canvas);
    button.addEventListener("click", () => this.#done(digit));
    return button;
  }

  /** One of them is in the order of Tab; arrows go from one to the next. */
  #focus(index) {
    this.buttons.forEach((button, i) => { button.tabIndex = i === index ? 0 : -1; });
    this.buttons[index].focus();
  }

  #move(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS }[event.key];
    const next = this.buttons.indexOf(document.activeElement) + by;
    if (!(next >= 0 && next < this.buttons.length)) return;
    event.preventDefault();
    this.#focus(next);
  }
}

/** A canvas to draw on. */
class Pad {
  constructor(canvas, use) {
    this.canvas = canvas;
    this.use = use;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(this.context, { lineCap: "round", lineJoin: "round", strokeStyle: "#fff", lineWidth: canvas.width / 10 });
    canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      this.at = this.#place(event);
      this.#line(this.at);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && this.at && this.#line(this.#place(event)));
    canvas.addEventListener("pointerup", () => { this.at = null; });
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.use.disabled = true;
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * this.canvas.width) / box.width, ((event.clientY - box.top) * this.canvas.height) / box.height];
  }

  #line(to) {
    this.context.beginPath();
    this.context.moveTo(...this.at);
    this.context.lineTo(...to);
    this.context.stroke();
    this.at = to;
    this.use.disabled = false;
  }
}
