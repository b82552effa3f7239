// Frames of a GIF or a video of the user's own, as the model takes them. Nothing leaves the browser.

const SECONDS = 0.1; // From one frame of a video to the next, where the browser does not tell its own: ten a second.
const MAX_PIXELS = 2 ** 25; // Of a frame: 8K video has fewer.
const PATIENCE = 20_000; // Milliseconds that a frame may take.
const AFTER_THE_END = 1e7; // Seconds.
const SAME_FRAME = 2000; // Milliseconds after a seek: what has not changed by then is the frame of before.
const BEFORE = 5e-4; // Seconds before a frame's time that the frame before it is shown: of up to 1000 frames a second.

/**
 * Up to numFrames frames of a file, C x H x W bytes each: the middle square (or the model's shape) of the picture.
 * Every frame is used; a video's in a browser that does not tell their times at a rate, `sampled`, else null.
 */
export async function readClip(file, shape, numFrames) {
  if (file.size === 0) throw new Error(`${file.name} is empty`);
  const animated = file.type.startsWith("image/");
  const { frames, sampled } = await (animated ? readImages : readVideo)(file, shape, numFrames).catch((error) => {
    throw named(error, file);
  });
  if (frames.length === 0) throw new Error(`${file.name} has no frames`);
  return { frames, sampled };
}

async function readImages(file, shape, numFrames) {
  if (typeof ImageDecoder === "undefined" || !(await ImageDecoder.isTypeSupported(file.type))) {
    throw new Error(`${file.name} is ${file.type}, which this browser does not take apart; give it a video (MP4 or WebM)`);
  }
  const size = await readSize(file);
  if (size) checkSize(...size, file);
  const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: file.type });
  try {
    await inTime(decoder.tracks.ready);
    await inTime(decoder.completed);
    const count = Math.min(decoder.tracks.selectedTrack?.frameCount ?? 0, numFrames);
    // Of one picture whose header is not read the size is not known until it fills the memory.
    if (count === 1 && !size) throw new Error(`${file.name} is a single picture; give a GIF or a video`);
    const frames = [];
    for (let frameIndex = 0; frameIndex < count; frameIndex += 1) {
      const { image } = await inTime(decoder.decode({ frameIndex }));
      try {
        checkSize(image.displayWidth, image.displayHeight, file);
        frames.push(grab(image, image.displayWidth, image.displayHeight, shape));
      } finally {
        image.close();
      }
    }
    return { frames, sampled: null };
  } finally {
    decoder.close();
  }
}

/** Width and height that the header of a GIF, PNG, animated WebP or AVIF states: before a frame fills the memory. */
async function readSize(file) {
  const bytes = new Uint8Array(await file.slice(0, 4096).arrayBuffer());
  const view = new DataView(bytes.buffer);
  const text = String.fromCharCode(...bytes);
  if (text.startsWith("GIF8") && bytes.length >= 10) return [view.getUint16(6, true), view.getUint16(8, true)];
  if (text.startsWith("\x89PNG") && bytes.length >= 24) return [view.getUint32(16), view.getUint32(20)];
  if (text.startsWith("VP8X", 12) && bytes.length >= 30) {
    return [1 + (view.getUint32(24, true) & 0xffffff), 1 + (view.getUint32(26, true) >>> 8)];
  }
  const box = text.startsWith("ftyp", 4) ? text.indexOf("ispe") : -1;
  if (box > 0 && bytes.length >= box + 16) return [view.getUint32(box + 8), view.getUint32(box + 12)];
  return null;
}

function checkSize(width, height, file) {
  if (!(width > 0 && height > 0)) throw new Error(`${file.name} has no picture: it is ${width}x${height} pixels large`);
  if (width * height > MAX_PIXELS) throw new Error(`${file.name} is ${width}x${height} pixels large; make it smaller`);
}

/** What is promised, or an error where it does not come. */
function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("a frame takes too long")), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function readVideo(file, shape, numFrames) {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  const url = URL.createObjectURL(file);
  try {
    await once(video, "loadeddata", file, () => { video.src = url; });
    if (!video.videoWidth) throw new Error(`${file.name} has no pictures, only sound`);
    checkSize(video.videoWidth, video.videoHeight, file);
    let end = video.duration;
    if (!Number.isFinite(end)) {
      // Browsers' own recordings do not say how long they are.
      await once(video, "seeked", file, () => { video.currentTime = AFTER_THE_END; });
      end = video.currentTime;
    }
    const seeker = new Seeker(video, file);
    const take = () => grab(video, video.videoWidth, video.videoHeight, shape);
    const frames = await everyFrame(seeker, end, numFrames, take);
    if (frames) return { frames, sampled: null };
    return { frames: await sampledFrames(seeker, end, numFrames, take), sampled: Math.round(1 / SECONDS) };
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

/** Shows the frame of a time, and says which one it is. */
class Seeker {
  constructor(video, file) {
    [this.video, this.file, this.shown] = [video, file, null];
  }

  /** Show the frame of a time. Its own time; null where the browser does not tell it. */
  async show(time) {
    // A busy browser still draws the frame of before when "seeked" is fired.
    const tells = Boolean(this.video.requestVideoFrameCallback);
    let handle;
    const changed = new Promise((resolve) => {
      if (tells) handle = this.video.requestVideoFrameCallback((_, { mediaTime }) => resolve(mediaTime));
    });
    await once(this.video, "seeked", this.file, () => { this.video.currentTime = time; });
    if (!tells) return null;
    const same = new Promise((resolve) => { setTimeout(() => resolve(this.shown), SAME_FRAME); });
    this.shown = await Promise.race([changed, same]);
    this.video.cancelVideoFrameCallback(handle);
    return this.shown;
  }
}

async function sampledFrames(seeker, end, numFrames, take) {
  const frames = [];
  for (let t = 0; t < numFrames && (t + 0.5) * SECONDS < end; t += 1) {
    await seeker.show((t + 0.5) * SECONDS);
    frames.push(take());
  }
  return frames;
}

/** Every frame of a video, up to numFrames; null where the browser does not find one after the other. */
async function everyFrame(seeker, end, numFrames, take) {
  // Away from the first frame, which may have been shown before it was waited for.
  await seeker.show(end);
  let time = await seeker.show(0);
  if (time === null) return null;
  const frames = [take()];
  let interval = null;
  while (frames.length < numFrames) {
    const next = await nextFrame(seeker, time, interval, end);
    if (next === undefined) return null;
    if (next === null) break;
    [interval, time] = [next - time, next];
    frames.push(take());
  }
  return frames;
}

/**
 * Show the frame after that of a time. Its time; null after the last; undefined where browsers contradict themselves,
 * as they do where frames do not come at a steady rate.
 */
async function nextFrame(seeker, time, interval, end) {
  let step = 1.5 * (interval ?? SECONDS);
  let goal = time;
  let next = time;
  while (next === time) {
    if (goal >= end || (interval && time + 1.25 * interval > end)) return null;
    goal = Math.min(end, goal + step);
    step *= 2;
    next = await seeker.show(goal);
  }
  if (next < time) return undefined;
  if (interval && Math.abs(next - time - interval) < interval / 4) return next;
  // Just before the time of a frame the one before it is shown: back to the one that is known.
  let before = await seeker.show(next - BEFORE);
  while (time < before && before < next) {
    next = before;
    before = await seeker.show(next - BEFORE);
  }
  return before === time && (await seeker.show(next + BEFORE)) === next ? next : undefined;
}

function once(video, event, file, begin) {
  const promise = new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error(`${file.name} is no video that this browser plays`)), { once: true });
    begin();
  });
  return inTime(promise);
}

function named(error, file) {
  const reason = error.message.replace(/\.$/, "");
  return reason.startsWith(file.name) ? error : new Error(`${file.name} cannot be read: ${reason}`);
}

function grab(source, sourceWidth, sourceHeight, { channels, height, width }) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const scale = Math.min(sourceWidth / width, sourceHeight / height);
  const [w, h] = [width * scale, height * scale];
  context.drawImage(source, (sourceWidth - w) / 2, (sourceHeight - h) / 2, w, h, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = height * width;
  const frame = new Uint8Array(channels * pixels);
  for (let i = 0; i < pixels; i += 1) {
    const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) {
      frame[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    } else {
      [frame[i], frame[pixels + i], frame[2 * pixels + i]] = [r, g, b];
    }
  }
  return frame;
}
