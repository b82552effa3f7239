// The page: what is shown when, and what the buttons do.

import { Chart } from "./chart.js";
import { loadDigits, paint } from "./digits.js";
import { Forecaster } from "./forecaster.js";
import { Hands } from "./hands.js";
import { readClip } from "./own-clip.js";
import { Picker } from "./picker.js";
import { MAX_HORIZON, clipScene, digitScene, heldScene, throwAnywhere } from "./scene.js";
import { glow, setShape, showBlack, showError, showFrame } from "./view.js";

const FRAMES_A_SECOND = 8;
const REST = 1300; // Milliseconds on the last frame, before it plays again.

const $ = (id) => document.getElementById(id);
const canvases = [$("truth"), $("forecast"), $("error")];
const slots = [...document.querySelectorAll(".slot")];
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// frame: 1 to T + horizon; 0 while a digit is held, before the first frame.
const state = { digits: [], scene: null, model: null, models: [], own: null, frame: 1, horizon: 10, playing: false, due: 0, failed: false };

/** For the console, and for tests: what is shown, in numbers. */
globalThis.plasmDemo = {
  get state() {
    return state;
  },
};

// Messages ------------------------------------------------------------------------------------------------------------

function say(title, text) {
  const strong = document.createElement("strong");
  strong.textContent = title;
  $("message").replaceChildren(strong, text);
  $("message").hidden = false;
}

function hush() {
  $("message").hidden = true;
}

const FAILURES = {
  runtime: ["The forecast cannot run in this browser", "It needs WebAssembly with SIMD: a Chrome, Edge, Firefox or Safari of the last three years."],
  model: ["The model does not load", "Reload the page; if that does not help, its files on the server are not whole."],
  forecast: ["The forecast stopped", "Reload the page to go on; a smaller horizon needs less memory."],
};

function failed({ what, reason }) {
  state.failed = true;
  const [title, remedy] = FAILURES[what];
  say(title, `${reason.replace(/\.$/, "")}. ${remedy} The true motion plays without it.`);
  $("status").textContent = "";
  render();
}

// The scene -----------------------------------------------------------------------------------------------------------

const inFrames = () => state.model.in_frames;
const lastFrame = () => inFrames() + state.horizon;

function setScene(scene) {
  // What was said of a clip is over; that there is no forecast is not.
  if (!state.failed) hush();
  state.scene = scene;
  state.frame = 1;
  state.due = 0;
  forecast();
  setPlaying(!calm.matches);
  render();
}

function throwDigits(digits) {
  state.digits = digits;
  state.own = null;
  slots.forEach((slot, i) => paint(slot.firstElementChild, digits[i].image));
  setScene(digitScene(digits, state.model));
}

/** Show digits where they are held, before they fly. */
function holdDigits(digits) {
  state.digits = digits;
  state.own = null;
  setPlaying(false);
  forecaster.cancel();
  state.scene = heldScene(digits, state.model);
  state.frame = 0;
  render();
}

function shuffle() {
  const pick = () => throwAnywhere(digits[Math.floor(Math.random() * digits.length)]);
  throwDigits([pick(), pick()]);
}

async function openClip(file) {
  if (!file) return;
  try {
    const { frames, sampled } = await readClip(file, state.model, inFrames() + MAX_HORIZON);
    const count = sampled ? `${frames.length} frames at ${sampled} a second, the rate used here` : `${frames.length} frames`;
    if (frames.length < inFrames()) {
      const remedy = sampled ? "; the command `plasm predict --input` uses every frame of a video" : "";
      throw new Error(`${file.name} has ${count}; the model sees ${inFrames()}${remedy}`);
    }
    state.own = file;
    state.sampled = sampled;
    setScene(clipScene(frames, state.model));
  } catch (error) {
    say("This clip cannot be used", `${error.message}.`);
  }
}

// The forecast --------------------------------------------------------------------------------------------------------

const forecaster = new Forecaster({
  onLoaded({ threads }) {
    state.failed = false;
    state.threads = threads;
    hush();
    forecast();
  },
  onFrames({ first, frames, milliseconds }) {
    state.scene.receive(first, frames);
    // A longer horizon comes in parts.
    state.milliseconds = milliseconds + (first > 0 ? state.milliseconds : 0);
    const made = `${state.scene.forecast.length} frame${state.scene.forecast.length > 1 ? "s" : ""} in ${Math.round(state.milliseconds)} ms`;
    const threads = `${state.threads} thread${state.threads > 1 ? "s" : ""}`;
    const rate = state.own && state.sampled ? ` ${state.own.name}: ${state.sampled} frames a second.` : "";
    $("status").textContent = `${state.model.name}: ${made}, ${threads}.${rate} ${state.model.about}`;
    render();
  },
  onFailed: failed,
});

function forecast() {
  if (!state.scene?.truth.length || !forecaster.ready) return;
  forecaster.predict(state.scene.clip(), state.horizon);
}

function chooseModel(model) {
  state.model = model;
  setShape(canvases, model);
  $("count-in").textContent = { 10: "ten", 4: "four", 5: "five", 8: "eight" }[model.in_frames] ?? model.in_frames;
  $("weights-licence").textContent = `Weights: ${model.license}.`;
  $("status").textContent = `Loading ${model.name}, ${(model.size / 1e6).toFixed(1)} MB, and what runs it.`;
  setHorizon(state.horizon);
  forecaster.load(model);
  if (state.own) openClip(state.own);
  else if (state.digits.length) throwDigits(state.digits);
}

function setHorizon(horizon) {
  state.horizon = horizon;
  $("horizon").value = horizon;
  $("horizon-tag").textContent = horizon === 1 ? "1 frame" : `${horizon} frames`;
  $("time").max = lastFrame();
  state.frame = Math.min(state.frame, lastFrame());
  const scale = [$("scale-in"), $("scale-out")];
  [inFrames(), horizon].forEach((count, i) => { scale[i].style.flex = `${count} ${count} 0`; });
}

// Showing -------------------------------------------------------------------------------------------------------------

function render() {
  const { scene, model, frame } = state;
  if (!scene) return;
  const ahead = frame - inFrames();
  renderTruth(scene, model, frame);
  const made = ahead > 0 ? scene.forecast[ahead - 1] : undefined;
  const truth = scene.truth[Math.max(frame, 1) - 1];
  if (made) showFrame($("forecast"), made, model.channels);
  else if (ahead <= 0 && frame > 0) showFrame($("forecast"), truth, model.channels);
  else showBlack($("forecast"));
  if (made && truth) showError($("error"), made, truth, model.channels, glow());
  else showBlack($("error"));
  $("forecast-screen").classList.toggle("watching", ahead <= 0);
  $("forecast-screen").classList.toggle("ahead", ahead > 0 && Boolean(made));
  $("forecast-tag").textContent = forecastTag(ahead, made);
  $("forecast-tag").classList.toggle("ahead", Boolean(made));
  const error = ahead > 0 ? scene.errors[ahead - 1] : undefined;
  $("error-tag").textContent = error === undefined ? "" : error.toFixed(1);
  $("time").value = Math.max(1, frame);
  const seen = frame > 0 ? `seen ${frame} / ${inFrames()}` : "held";
  $("time-tag").textContent = ahead > 0 ? `ahead ${ahead} / ${state.horizon}` : seen;
  $("time").setAttribute("aria-valuetext", ahead > 0 ? `forecast frame ${ahead}` : `input frame ${frame}`);
  renderWait(made, ahead);
  renderNote(scene);
  renderChart(scene, ahead);
}

/** Why the tile of the forecast shows none, where one is waited for. */
function renderWait(made, ahead) {
  const computing = ahead > 0 || (ahead === 0 && !state.scene.forecast[0]);
  $("wait").hidden = state.failed || Boolean(made) || state.frame === 0 || (forecaster.ready && !computing);
  $("wait").textContent = forecaster.ready ? "Computing" : `Loading the model, ${(state.model.size / 1e6).toFixed(1)} MB`;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Say that a forecast is worse than no forecast. */
function renderNote(scene) {
  const known = scene.still.slice(0, state.horizon);
  const errors = scene.errors.slice(0, known.length);
  const whole = known.length > 0 && errors.length === known.length && errors.every((value) => value !== undefined);
  const [own, still] = [mean(errors), mean(known)];
  $("note").hidden = !(whole && own > still);
  $("note").parentElement.classList.toggle("noted", !$("note").hidden);
  if ($("note").hidden) return;
  const seen = state.model.name.includes("mmnist") ? "moving digits" : "other scenes";
  const why = state.own ? `These weights were trained on ${seen}` : "It happens where digits overlap";
  $("note").textContent = `Worse than the last frame held still: MSE ${own.toFixed(1)} against ${still.toFixed(1)}. ${why}.`;
}

function forecastTag(ahead, made) {
  if (made) return `+${ahead}`;
  if (state.failed) return "none";
  if (ahead > 0) return "…";
  return state.frame > 0 ? "watching" : "";
}

function renderTruth(scene, model, frame) {
  if (frame === 0) {
    showFrame($("truth"), scene.before, model.channels);
  } else if (scene.truth[frame - 1]) {
    showFrame($("truth"), scene.truth[frame - 1], model.channels);
  } else {
    showBlack($("truth"));
  }
  $("truth-tag").textContent = frame > scene.truth.length ? "not known" : "";
  hands.show(scene.positions?.[frame], frame === 0);
}

function renderChart(scene, ahead) {
  const { horizon } = state;
  const known = scene.errors.filter((value) => value !== undefined).length;
  // Drawn anew only where it changed: it is asked for at every frame.
  const key = [horizon, known, state.scene.still.length];
  if (renderChart.scene !== scene || String(renderChart.key) !== String(key)) {
    chart.show({ numFrames: horizon, model: scene.errors.slice(0, horizon), still: scene.still.slice(0, horizon) });
    [renderChart.scene, renderChart.key] = [scene, key];
  }
  chart.mark(ahead > 0 ? ahead : null);
}

// Time ----------------------------------------------------------------------------------------------------------------

function setPlaying(playing) {
  state.playing = playing;
  $("play").classList.toggle("playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

function tick(now) {
  requestAnimationFrame(tick);
  if (!state.playing || !state.scene || now < state.due) return;
  const next = state.frame >= lastFrame() ? 1 : state.frame + 1;
  const waits = next > inFrames() && !state.failed && !state.scene.forecast[next - inFrames() - 1];
  if (waits) {
    renderWait(undefined, next - inFrames());
    return;
  }
  goTo(next);
  state.due = now + (next === lastFrame() ? REST : 1000 / FRAMES_A_SECOND);
}

function goTo(frame) {
  state.frame = frame;
  render();
}

/** Show a frame that was asked for, and stay there. */
function pick(frame) {
  if (!state.scene) return;
  if (state.frame === 0) throwDigits(state.digits);
  setPlaying(false);
  goTo(frame);
}

function toggle() {
  if (state.frame === 0) throwDigits(state.digits);
  else setPlaying(!state.playing);
}

// Controls ------------------------------------------------------------------------------------------------------------

const chart = new Chart($("chart"), (ahead) => pick(inFrames() + ahead));
const hands = new Hands($("truth-screen"), $("arrows"), {
  /** The digits as they are at this moment, to be moved from there. */
  caught: () => state.scene.positions[state.frame],
  held: holdDigits,
  thrown: throwDigits,
});
let digits = [];

$("play").addEventListener("click", toggle);
$("time").addEventListener("input", () => pick(Number($("time").value)));
$("horizon").addEventListener("input", () => {
  setHorizon(Number($("horizon").value));
  if (state.scene && state.scene.forecast.length < state.horizon) forecast();
  render();
});
$("shuffle").addEventListener("click", shuffle);
$("open").addEventListener("change", () => {
  openClip($("open").files[0]);
  $("open").value = "";
});
$("weights").addEventListener("change", () => chooseModel(state.models[$("weights").selectedIndex]));
addEventListener("keydown", (event) => {
  if (event.key === " " && event.target === document.body) {
    event.preventDefault();
    toggle();
  }
});

let dragDepth = 0;
const dragged = (change) => (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  dragDepth = Math.max(0, dragDepth + change);
  $("drop").hidden = dragDepth === 0;
};
addEventListener("dragenter", dragged(1));
addEventListener("dragleave", dragged(-1));
addEventListener("dragover", dragged(0));
addEventListener("drop", (event) => {
  event.preventDefault();
  dragDepth = 0;
  $("drop").hidden = true;
  openClip(event.dataTransfer.files[0]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);

async function fetchModels() {
  const response = await fetch("models.json");
  if (!response.ok) throw new Error(`models.json does not come: the server says ${response.status}`);
  return response.json();
}

async function start() {
  try {
    [digits, state.models] = await Promise.all([loadDigits(), fetchModels()]);
  } catch (error) {
    failed({ what: "model", reason: error.message });
    return;
  }
  const picker = new Picker($("picker"), digits);
  slots.forEach((slot, i) => slot.addEventListener("click", () => {
    picker.choose(`Digit ${i + 1}`, state.digits[i], (chosen) => {
      const changed = [...state.digits];
      changed[i] = { ...changed[i], ...chosen };
      throwDigits(changed);
    });
  }));
  $("weights").replaceChildren(...state.models.map((model) => new Option(model.name)));
  $("weights-field").hidden = state.models.length < 2;
  chooseModel(state.models[0]);
  shuffle();
}

start();
requestAnimationFrame(tick);
