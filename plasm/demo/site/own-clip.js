// Frames of a GIF or a video of the user's own, as the model takes them. Nothing leaves the browser.

const SECONDS = 0.1; // From one frame of a video to the next: ten frames a second.

/** Up to numFrames frames of a file, C x H x W bytes each: the middle square (or the model's shape) of the picture. */
export async function readClip(file, shape, numFrames) {
  const animated = file.type.startsWith("image/");
  const frames = animated ? await readImages(file, shape, numFrames) : await readVideo(file, shape, numFrames);
  if (frames.length === 0) throw new Error(`${file.name} has no frames`);
  return frames;
}

async function readImages(file, shape, numFrames) {
  if (typeof ImageDecoder === "undefined" || !(await ImageDecoder.isTypeSupported(file.type))) {
    throw new Error(`this browser does not take ${file.type} apart; give it a video (MP4 or WebM)`);
  }
  const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: file.type });
  try {
    await decoder.tracks.ready;
    await decoder.completed;
    const count = Math.min(decoder.tracks.selectedTrack?.frameCount ?? 0, numFrames);
    const frames = [];
    for (let frameIndex = 0; frameIndex < count; frameIndex += 1) {
      const { image } = await decoder.decode({ frameIndex });
      frames.push(grab(image, image.displayWidth, image.displayHeight, shape));
      image.close();
    }
    return frames;
  } catch (error) {
    throw new Error(`${file.name} cannot be read: ${error.message}`);
  } finally {
    decoder.close();
  }
}

async function readVideo(file, shape, numFrames) {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  const url = URL.createObjectURL(file);
  try {
    await once(video, "loadeddata", file, () => { video.src = url; });
    const frames = [];
    for (let t = 0; t < numFrames && (t + 0.5) * SECONDS < video.duration; t += 1) {
      await once(video, "seeked", file, () => { video.currentTime = (t + 0.5) * SECONDS; });
      frames.push(grab(video, video.videoWidth, video.videoHeight, shape));
    }
    return frames;
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

function once(video, event, file, begin) {
  return new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error(`${file.name} is no video that this browser plays`)), { once: true });
    begin();
  });
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
