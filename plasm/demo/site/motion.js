// Two digits that move as in plasm's Moving MNIST (plasm/data/moving_mnist.py), pixel for pixel.
//
// Positions and velocities are integers, in units of the free range / 2^24; doubles hold them without rounding.

export const ONE = 2 ** 24;
export const DIGIT_SIZE = 28;
const NUM_DIRECTIONS = 65536;
const STEP = 0.1;
const FRAME_SIZE = 64;

/** The step (down, right) of a digit that moves at an angle, in radians from "right" towards "down". */
export function velocityAt(angle) {
  const index = ((Math.round((angle / (2 * Math.PI)) * NUM_DIRECTIONS) % NUM_DIRECTIONS) + NUM_DIRECTIONS) % NUM_DIRECTIONS;
  const a = (2 * Math.PI * index) / NUM_DIRECTIONS;
  return [Math.round(STEP * ONE * Math.sin(a)), Math.round(STEP * ONE * Math.cos(a))];
}

/** The angle of a velocity. */
export function angleOf([down, right]) {
  return Math.atan2(down, right);
}

/** One step along one axis: a digit stops at an edge and turns back. */
function stepAxis(place, velocity) {
  const next = place + velocity;
  if (next >= ONE) return [ONE, -velocity];
  if (next <= 0) return [0, -velocity];
  return [next, velocity];
}

/** A digit one frame later: {image, place: [down, right], velocity: [down, right]}. */
export function step(digit) {
  const moved = [0, 1].map((axis) => stepAxis(digit.place[axis], digit.velocity[axis]));
  return { ...digit, place: moved.map(([place]) => place), velocity: moved.map(([, velocity]) => velocity) };
}

/** Digits before frame 1, and after each of so many frames. */
export function states(digits, numFrames) {
  const all = [digits];
  for (let t = 0; t < numFrames; t += 1) all.push(all[t].map(step));
  return all;
}

/** Pixels of a digit in frames of this size: 28 in frames of 64, as in the data set. */
export function digitSize(height, width) {
  return Math.max(1, Math.round((DIGIT_SIZE * Math.min(height, width)) / FRAME_SIZE));
}

/** Top left corner, in pixels, of a digit at a place. */
export function corner(place, size, height, width) {
  return [Math.floor((place[0] * (height - size)) / ONE), Math.floor((place[1] * (width - size)) / ONE)];
}

/** A 28 x 28 image in another size, by the mean of the pixels that each new one covers. */
export function resize(image, size) {
  if (size === DIGIT_SIZE) return image;
  const scale = DIGIT_SIZE / size;
  const weights = Array.from({ length: size }, (_, i) => {
    const [from, to] = [i * scale, (i + 1) * scale];
    const row = [];
    for (let k = Math.floor(from); k < Math.min(DIGIT_SIZE, Math.ceil(to)); k += 1) {
      row.push([k, (Math.min(to, k + 1) - Math.max(from, k)) / scale]);
    }
    return row;
  });
  const out = new Uint8Array(size * size);
  for (let y = 0; y < size; y += 1) {
    for (let x = 0; x < size; x += 1) {
      let sum = 0;
      for (const [v, wv] of weights[y]) for (const [u, wu] of weights[x]) sum += wv * wu * image[v * DIGIT_SIZE + u];
      out[y * size + x] = Math.round(sum);
    }
  }
  return out;
}

/** A frame, C x H x W bytes: where digits overlap the brighter pixel shows. */
export function draw(digits, { channels, height, width }) {
  const frame = new Uint8Array(channels * height * width);
  const size = digitSize(height, width);
  for (const digit of digits) {
    const image = resize(digit.image, size);
    const [top, left] = corner(digit.place, size, height, width);
    for (let y = 0; y < size; y += 1) {
      for (let x = 0; x < size; x += 1) {
        const at = (top + y) * width + left + x;
        frame[at] = Math.max(frame[at], image[y * size + x]);
      }
    }
  }
  for (let c = 1; c < channels; c += 1) frame.copyWithin(c * height * width, 0, height * width);
  return frame;
}
