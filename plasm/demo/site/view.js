// Frames, and arrows over them, as pictures.

const ARROW = 15; // Length of a digit's arrow, in 64ths of the frame.

/** The accent as light on black, from the style sheet. */
export function glow() {
  return getComputedStyle(document.documentElement).getPropertyValue("--glow").split(",").map(Number);
}

/** Give the canvases the size of the model's frames. */
export function setShape(canvases, { height, width }) {
  for (const canvas of canvases) {
    [canvas.width, canvas.height] = [width, height];
    canvas.parentElement.style.setProperty("--shape", `${width} / ${height}`);
  }
}

function fill(canvas, colour) {
  const { width, height } = canvas;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const [r, g, b] = colour(i);
    image.data[4 * i] = r;
    image.data[4 * i + 1] = g;
    image.data[4 * i + 2] = b;
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** A frame, C x H x W values in [0, 1]; what is outside is cut off, for the eye alone. */
export function showFrame(canvas, frame, channels) {
  const pixels = canvas.width * canvas.height;
  const at = (i) => 255 * frame[i];
  fill(canvas, channels === 1 ? (i) => [at(i), at(i), at(i)] : (i) => [at(i), at(i + pixels), at(i + 2 * pixels)]);
}

/** Where and how much two frames differ: black where they agree, the accent where they do not. */
export function showError(canvas, frame, truth, channels, [r, g, b]) {
  const pixels = canvas.width * canvas.height;
  fill(canvas, (i) => {
    let sum = 0;
    for (let c = 0; c < channels; c += 1) sum += Math.abs(frame[i + c * pixels] - truth[i + c * pixels]);
    const value = Math.min(1, sum / channels);
    return [r * value, g * value, b * value];
  });
}

export function showBlack(canvas) {
  fill(canvas, () => [0, 0, 0]);
}

/** Sum of squared differences of two frames: the MSE of the field, for one frame. */
export function squaredError(frame, truth) {
  let sum = 0;
  for (let i = 0; i < truth.length; i += 1) sum += (frame[i] - truth[i]) ** 2;
  return sum;
}

/** Arrows from the middles of digits, [{x, y, angle}] in shares of the frame, on an <svg> of 64 x 64. */
export function showArrows(svg, arrows) {
  const path = ({ x, y, angle }) => {
    const point = (from, along, turn) => [from[0] + along * Math.cos(angle + turn), from[1] + along * Math.sin(angle + turn)];
    const start = [64 * x, 64 * y];
    const tip = point(start, ARROW, 0);
    const [left, right] = [point(tip, 4, Math.PI * 0.8), point(tip, 4, -Math.PI * 0.8)];
    return `M${start} L${tip} M${left} L${tip} L${right}`;
  };
  svg.replaceChildren(
    ...arrows.map((arrow) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", "path");
      made.setAttribute("d", path(arrow));
      return made;
    }),
  );
}
