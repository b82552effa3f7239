// The digits that ship, and digits drawn by hand, 28 x 28 bytes each.

import { DIGIT_SIZE } from "./motion.js";

const PIXELS = DIGIT_SIZE * DIGIT_SIZE;
const BOX = 20; // MNIST fits a digit into 20 x 20 pixels, and centres its mass in 28 x 28.

/** The real digits of the page: ten of each, in order. */
export async function loadDigits() {
  const response = await fetch("digits.bin");
  if (!response.ok) throw new Error(`digits.bin does not come: the server says ${response.status}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const each = bytes.length / PIXELS / 10;
  if (!Number.isInteger(each)) throw new Error("digits.bin is damaged");
  return Array.from({ length: 10 * each }, (_, i) => ({
    image: bytes.slice(i * PIXELS, (i + 1) * PIXELS),
    label: `digit ${Math.floor(i / each)}`,
  }));
}

/** Draw 28 x 28 bytes on a canvas of that size. */
export function paint(canvas, image) {
  const data = new ImageData(DIGIT_SIZE, DIGIT_SIZE);
  image.forEach((value, i) => data.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(data, 0, 0);
}

/** What was drawn on a canvas, as MNIST makes a digit of it; null if nothing was. */
export function normalize(canvas) {
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let [top, left, bottom, right] = [height, width, -1, -1];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (pixels[4 * (y * width + x) + 3] < 64) continue;
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      [left, right] = [Math.min(left, x), Math.max(right, x)];
    }
  }
  if (bottom < 0) return null;
  const [h, w] = [bottom - top + 1, right - left + 1];
  const scale = BOX / Math.max(h, w);
  const scaled = onBlack((context) => {
    context.imageSmoothingQuality = "high";
    context.drawImage(canvas, left, top, w, h, 0, 0, w * scale, h * scale);
  });
  let [mass, my, mx] = [0, 0, 0];
  scaled.forEach((value, i) => {
    mass += value;
    my += value * Math.floor(i / DIGIT_SIZE);
    mx += value * (i % DIGIT_SIZE);
  });
  const middle = (DIGIT_SIZE - 1) / 2;
  return shift(scaled, Math.round(middle - my / mass), Math.round(middle - mx / mass));
}

function onBlack(drawIt) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = DIGIT_SIZE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, DIGIT_SIZE, DIGIT_SIZE);
  drawIt(context);
  const { data } = context.getImageData(0, 0, DIGIT_SIZE, DIGIT_SIZE);
  return Uint8Array.from({ length: PIXELS }, (_, i) => data[4 * i]);
}

function shift(image, down, right) {
  const out = new Uint8Array(PIXELS);
  for (let y = 0; y < DIGIT_SIZE; y += 1) {
    for (let x = 0; x < DIGIT_SIZE; x += 1) {
      const [v, u] = [y - down, x - right];
      if (v >= 0 && v < DIGIT_SIZE && u >= 0 && u < DIGIT_SIZE) out[y * DIGIT_SIZE + x] = image[v * DIGIT_SIZE + u];
    }
  }
  return out;
}
