/* The page: asks for the microphone, starts audio thread and worker, and shows their figures. */

import { allocate, RUNNING } from "./rings.js";
import { Recording } from "./wav.js";

const RECORDING_S = 30 * 60;
const QUIETEST_DB = -60;
const $ = (id) => document.getElementById(id);

const figures = await (await fetch("model.json")).json();
const gains = figures.sources.map((_, k) => (k ? QUIETEST_DB : 0));
let original = false;
let session = null; // {context, stream, rings, player, worker}
let recording = null;

function say(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// --- shared memory needs an isolated page, for which the service worker sets headers -----------

async function isolated() {
  if (self.crossOriginIsolated) return true;
  if (!("serviceWorker" in navigator)) {
    say("Browsers allow this on https pages and on localhost only.");
    return false;
  }
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  if (sessionStorage.getItem("reloaded")) {
    say("This browser does not share memory with workers on this page: try a newer one.");
    return false;
  }
  sessionStorage.setItem("reloaded", "yes");
  location.reload();
  return false;
}

// --- the stream ---------------------------------------------------------------------------------

async function start() {
  say("");
  show("idle", "starting");
  const rings = allocate(figures.sources.length);
  const parts = (session = { rings });
  try {
    // The browser's own processing would change the mixture; it also resamples to the model's rate.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    parts.stream = await navigator.mediaDevices.getUserMedia({ audio });
    parts.context = new AudioContext({ latencyHint: "interactive", sampleRate: figures.sample_rate });
    await parts.context.audioWorklet.addModule("worklet.js");
    Atomics.store(rings.control, RUNNING, 1);
    parts.worker = new Worker("model.js", { type: "module" });
    await new Promise((resolve, reject) => {
      parts.worker.onerror = ({ message }) => reject(new Error(message));
      parts.worker.onmessage = ({ data }) => {
        if (data.ready) resolve();
        else if (data.problem) reject(new Error(data.problem));
        else showLoad(data);
      };
      parts.worker.postMessage({ rings, figures });
    });
    parts.player = new AudioWorkletNode(parts.context, "rtsep-player", {
      outputChannelCount: [1],
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { rings, late: figures.latency_samples },
    });
    parts.player.port.onmessage = ({ data }) => (data.sound ? keep(data.sound) : showStream(data));
    setWeights();
    parts.context.createMediaStreamSource(parts.stream).connect(parts.player);
    parts.player.connect(parts.context.destination);
    await parts.context.resume();
    $("start").textContent = "Stop";
    $("start").classList.add("running");
    $("record").disabled = false;
    show("idle", "listening");
  } catch (error) {
    await stop();
    say(error.name === "NotAllowedError" ? "The browser may not use the microphone: allow it." : error.message);
  }
}

async function stop() {
  if (recording) save();
  const { rings, stream, context, worker, player } = session;
  session = null;
  Atomics.store(rings.control, RUNNING, 0);
  stream?.getTracks().forEach((track) => track.stop());
  player?.disconnect();
  worker?.terminate();
  if (context) await context.close();
  $("start").textContent = "Start";
  $("start").classList.remove("running");
  $("record").disabled = true;
  show("idle", "idle");
}

function setWeights() {
  const { weights } = session.rings;
  const linear = (db) => (db <= QUIETEST_DB ? 0 : 10 ** (db / 20));
  gains.forEach((db, k) => (weights[k] = original ? 0 : linear(db)));
  weights[gains.length] = original ? 1 : 0;
}

// --- figures ------------------------------------------------------------------------------------

function showLoad({ load, call, longest, each }) {
  $("load").textContent = load.toFixed(3);
  $("loadtext").textContent =
    `${call.toFixed(2)} ms of ${each.toFixed(1)} ms a block, at most ${longest.toFixed(1)} ms`;
}

function showStream({ queue, misses, playing }) {
  const rate = figures.sample_rate;
  const { baseLatency, outputLatency } = session?.context ?? {};
  const terms = {
    model: (1000 * figures.latency_samples) / rate,
    "block and queue": (1000 * queue) / rate,
    playback: 1000 * ((baseLatency || 0) + (outputLatency || 0)),
  };
  const total = Object.values(terms).reduce((sum, ms) => sum + ms, 0);
  $("latency").textContent = `${total.toFixed(0)} ms`;
  $("terms").replaceChildren(
    ...Object.entries(terms).map(([name, ms]) => {
      const item = document.createElement("li");
      const figure = document.createElement("b");
      figure.textContent = `${ms.toFixed(1)} ms`;
      item.append(name, figure);
      return item;
    }),
  );
  $("misses").textContent = misses;
  if (session && playing) show("live", "live");
}

// --- recording ----------------------------------------------------------------------------------

function keep(sound) {
  if (!recording) return;
  recording.append(sound);
  $("recordtext").textContent = `${recording.seconds.toFixed(0)} s`;
  if (recording.full) save();
}

function save() {
  session?.player?.port.postMessage({ recording: false });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(recording.blob());
  link.download = "rtsep.wav";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  recording = null;
  $("record").setAttribute("aria-pressed", "false");
  $("recordtext").textContent = "Record";
}

// --- controls -----------------------------------------------------------------------------------

$("start").onclick = () => (session ? stop() : start());
$("record").onclick = () => {
  if (recording) return save();
  recording = new Recording(figures.sample_rate, 1, RECORDING_S);
  session.player.port.postMessage({ recording: true });
  $("record").setAttribute("aria-pressed", "true");
};
for (const id of ["separated", "original"]) {
  $(id).onclick = () => {
    original = id === "original";
    $("separated").setAttribute("aria-pressed", String(!original));
    $("original").setAttribute("aria-pressed", String(original));
    if (session) setWeights();
  };
}
figures.sources.forEach((name, k) => {
  const row = $("source").content.cloneNode(true);
  const [label, slider, level] = ["span", "input", "output"].map((tag) => row.querySelector(tag));
  const write = () => {
    gains[k] = Number(slider.value);
    level.textContent = gains[k] <= QUIETEST_DB ? "off" : `${gains[k].toFixed(1)} dB`;
    if (session) setWeights();
  };
  label.textContent = name;
  slider.value = gains[k];
  slider.oninput = write;
  write();
  $("sources").append(row);
});
$("about").textContent =
  `Model: ${figures.name}, ${figures.sources.join(", ")}, ${figures.sample_rate} Hz. ${figures.licence}`;
if (await isolated()) {
  sessionStorage.removeItem("reloaded");
  $("start").disabled = false;
  show("idle", "idle");
  navigator.serviceWorker?.register("sw.js"); // where the host sets the headers: for use offline
}
