// Frames of a GIF or a video of the user's own, as the model takes them. Nothing leaves the browser.

const SECONDS = 0.1; // From one frame of a video to the next: ten frames a second.
const MAX_PIXELS = 2 ** 25; // Of a frame: 8K video has fewer.
const PATIENCE = 20_000; // Milliseconds that a frame may take.
const AFTER_THE_END = 1e7; // Seconds.
const SAME_FRAME = 500; // Milliseconds after a seek: what has not changed by then is the frame of before.

/**
 * Up to numFrames frames of a file, C x H x W bytes each: the middle square (or the model's shape) of the picture.
 * A browser does not tell the frames of a video: `sampled` is the rate that they were taken at, null where all are used.
 */
export async function readClip(file, shape, numFrames) {
  const animated = file.type.startsWith("image/");
  const frames = animated ? await readImages(file, shape, numFrames) : await readVideo(file, shape, numFrames);
  if (frames.length === 0) throw new Error(`${file.name} has no frames`);
  return { frames, sampled: animated ? null : Math.round(1 / SECONDS) };
}

async function readImages(file, shape, numFrames) {
  if (typeof ImageDecoder === "undefined" || !(await ImageDecoder.isTypeSupported(file.type))) {
    throw new Error(`this browser does not take ${file.type} apart; give it a video (MP4 or WebM)`);
  }
  const size = await readSize(file);
  if (size) checkSize(...size, file);
  const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: file.type });
  try {
    await inTime(decoder.tracks.ready);
    await inTime(decoder.completed);
    const count = Math.min(decoder.tracks.selectedTrack?.frameCount ?? 0, numFrames);
    const frames = [];
    for (let frameIndex = 0; frameIndex < count; frameIndex += 1) {
      const { image } = await inTime(decoder.decode({ frameIndex }));
      checkSize(image.displayWidth, image.displayHeight, file);
      frames.push(grab(image, image.displayWidth, image.displayHeight, shape));
      image.close();
    }
    return frames;
  } catch (error) {
    throw named(error, file);
  } finally {
    decoder.close();
  }
}

/** Width and height that the header of a GIF, PNG or animated WebP states: known before a frame fills the memory. */
async function readSize(file) {
  const bytes = new Uint8Array(await file.slice(0, 30).arrayBuffer());
  const view = new DataView(bytes.buffer);
  const text = String.fromCharCode(...bytes);
  if (text.startsWith("GIF8") && bytes.length >= 10) return [view.getUint16(6, true), view.getUint16(8, true)];
  if (text.startsWith("\x89PNG") && bytes.length >= 24) return [view.getUint32(16), view.getUint32(20)];
  if (text.startsWith("VP8X", 12) && bytes.length >= 30) {
    return [1 + (view.getUint32(24, true) & 0xffffff), 1 + (view.getUint32(26, true) >>> 8)];
  }
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
    const frames = [];
    for (let t = 0; t < numFrames && (t + 0.5) * SECONDS < end; t += 1) {
      const shown = presented(video);
      await once(video, "seeked", file, () => { video.currentTime = (t + 0.5) * SECONDS; });
      await shown();
      frames.push(grab(video, video.videoWidth, video.videoHeight, shape));
    }
    return frames;
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

/**
 * Call before a seek; what it returns waits, after it, until the new frame can be drawn: a busy browser still draws the
 * frame of before when "seeked" is fired.
 */
function presented(video) {
  if (!video.requestVideoFrameCallback) return () => Promise.resolve();
  const changed = new Promise((resolve) => { video.requestVideoFrameCallback(resolve); });
  return () => Promise.race([changed, new Promise((resolve) => { setTimeout(resolve, SAME_FRAME); })]);
}

function once(video, event, file, begin) {
  const promise = new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error(`${file.name} is no video that this browser plays`)), { once: true });
    begin();
  });
  return inTime(promise).catch((error) => {
    throw named(error, file);
  });
}

function named(error, file) {
  return error.message.startsWith(file.name) ? error : new Error(`${file.name} cannot be read: ${error.message}`);
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
