// The error of each forecast frame, as a curve.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 168, 34, 16, 10, 24];

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The largest of 1, 2, 5, 10, 20, ... that gives about so many steps. */
function niceStep(range, steps) {
  const rough = Math.max(range, 1e-9) / steps;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

/** A chart in an <svg>; the viewBox follows its shape on the page, so that text keeps its size. */
export class Chart {
  constructor(svg, onPick) {
    this.svg = svg;
    this.content = { numFrames: 10, model: [], still: [] };
    this.at = null;
    new ResizeObserver(() => this.#draw()).observe(svg);
    const pick = (event) => {
      const box = svg.getBoundingClientRect();
      const share = (((event.clientX - box.left) / box.width) * this.width - LEFT) / (this.width - LEFT - RIGHT);
      onPick(Math.max(1, Math.min(this.content.numFrames, Math.round(1 + share * (this.content.numFrames - 1)))));
    };
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      pick(event);
    });
    svg.addEventListener("pointermove", (event) => event.buttons && pick(event));
  }

  /** model and still: an error a frame, undefined where it is not known. */
  show(content) {
    this.content = content;
    this.#draw();
  }

  /** Mark a forecast frame, from 1; null for none. */
  mark(at) {
    this.at = at;
    this.#mark();
  }

  #x(frame) {
    return LEFT + ((frame - 1) / Math.max(1, this.content.numFrames - 1)) * (this.width - LEFT - RIGHT);
  }

  #y(value) {
    return this.height - BOTTOM - (value / this.top) * (this.height - TOP - BOTTOM);
  }

  #draw() {
    const box = this.svg.getBoundingClientRect();
    [this.width, this.height] = [box.width || WIDTH, box.height || HEIGHT];
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const { numFrames, model, still } = this.content;
    const known = [...model, ...still].filter((value) => value !== undefined);
    const step = niceStep(Math.max(10, ...known), 3);
    this.top = step * Math.ceil(Math.max(10, ...known) / step);
    this.svg.replaceChildren();
    for (let value = 0; value <= this.top; value += step) {
      this.#add("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: this.#y(value), y2: this.#y(value) });
      this.#add("text", { class: "tick", x: LEFT - 8, y: this.#y(value) + 4, "text-anchor": "end" }, String(value));
    }
    const every = Math.max(1, niceStep(numFrames, this.width < 400 ? 3 : 10));
    for (let frame = every === 1 ? 1 : every; frame <= numFrames; frame += every) {
      this.#add("text", { class: "tick", x: this.#x(frame), y: this.height - 6, "text-anchor": "middle" }, `+${frame}`);
    }
    this.#curve(still, "still");
    this.#curve(model, "model");
    this.cursor = this.#add("line", { class: "cursor", y1: TOP, y2: this.height - BOTTOM });
    this.dot = this.#add("circle", { class: "dot", r: 4.5 });
    this.#mark();
  }

  #add(...what) {
    return this.svg.appendChild(element(...what));
  }

  #curve(values, name) {
    const points = values.flatMap((value, i) => (value === undefined ? [] : [`${this.#x(i + 1)},${this.#y(value)}`]));
    if (points.length) this.#add("polyline", { class: name, points: points.join(" ") });
  }

  #mark() {
    if (!this.cursor) return;
    const value = this.at === null ? undefined : this.content.model[this.at - 1];
    this.cursor.style.display = this.at === null ? "none" : "";
    this.dot.style.display = value === undefined ? "none" : "";
    if (this.at === null) return;
    this.cursor.setAttribute("x1", this.#x(this.at));
    this.cursor.setAttribute("x2", this.#x(this.at));
    if (value === undefined) return;
    this.dot.setAttribute("cx", this.#x(this.at));
    this.dot.setAttribute("cy", this.#y(value));
  }
}
