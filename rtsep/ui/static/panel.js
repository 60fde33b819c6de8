/* The page: sends controls to the audio graph and the server, and shows their messages. */

import { Audio, AudioProblem, microphones } from "/static/audio.js";
import { latencyTerms, loadRows, showLatency, showRows } from "/static/figures.js";
import { Faders } from "/static/faders.js";
import { Strips } from "/static/strips.js";
import { Recording } from "/static/wav.js";

const PROTOCOL = "rtsep.v1";
const RECORDING_S = 30 * 60;
const $ = (id) => document.getElementById(id);

const AGAIN_MS = 2000;

let session = null;   // {audio, worker, engine, status, report, trip}; no audio where it is the server's
let recording = null;
const strips = new Strips(
  $("strips"), $("strip"), say, (loudest) => session?.audio?.bridge.port.postMessage({ loudest }),
);

const faders = new Faders($("faders"), say);

// --- the server -----------------------------------------------------------------------------

function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname); // not to be seen, nor sent to others
  }
  return sessionStorage.getItem("token");
}

async function greet() {
  const secret = token();
  const headers = secret ? { Authorization: `Bearer ${secret}` } : {};
  const response = await fetch("/models", { headers }).catch(() => null);
  if (!response) throw new AudioProblem("The server does not answer: is rtsep ui still running?");
  $("entry").hidden = response.status !== 401;
  if (response.status === 401) throw new AudioProblem(secret ? "The token is wrong." : "The token is missing.");
  return response.json();
}

function say(command) {
  session?.worker.postMessage({ say: command });
}

function heard(event) {
  if (!session) return;
  const { message, spectra, closed, trip, dropped } = event.data;
  if (spectra) strips.take(spectra);
  if (trip) Object.assign(session, { trip, dropped });
  if (closed) lost(closed);
  if (!message) return;
  if (message.type === "ready") ready(message);
  else if (message.type === "controls") follow(message);
  else if (message.type === "status") {
    session.status = message;
    if (!session.audio) station(message);
  } else if (message.type === "notice") notice(message.text);
  else if (message.type === "problem") {
    notice(message.text);
    chosen("model", session.model);
    if (session.status?.device) chosen("input", session.status.device);
  }
}

function ready(message) {
  const original = session.audio && strips.bypass;
  session.engine = message.latency_ms;
  session.model = message.model;
  session.audio?.bridge.port.postMessage({ engine: message.latency_samples });
  strips.show(message);
  faders.show(message);
  if (original && !message.controls.bypass) strips.setBypass(true);
  showBypass();
  chosen("model", message.model);
  state("live", "live");
}

function follow(controls) {
  strips.follow(controls);
  faders.follow(controls);
  showBypass();
}

/** Show the current choice, even if it is not in the list. */
function chosen(id, value) {
  const known = [...$(id).options].some((option) => option.value === value);
  if (!known) $(id).append(new Option(value));
  $(id).value = value;
  $(id).disabled = false;
}

async function lost({ code, reason }) {
  const watching = session && !session.audio;
  await stop();
  state("lost", "ended");
  if (watching) setTimeout(begin, AGAIN_MS);
  const place = await greet().then(({ places }) => places, (error) => notice(error.message));
  if (place === undefined) return;
  if (reason) notice(`The server ended the session: ${reason}.`);
  else if (place === 0) notice("All of the server's sessions are taken: try again when one has ended.");
  else notice(code === 1012 ? "The server has stopped." : "The connection was lost.");
}

// --- start and stop -------------------------------------------------------------------------

function chosenInput() {
  const value = $("input").value;
  if (value === "demo") return { kind: "demo" };
  if (value === "file") return { kind: "file", file: $("file").files[0] };
  return { kind: "microphone", deviceId: value === "microphone" ? null : value };
}

function connect(audio, greeting, port) {
  const worker = new Worker("/static/socket.js");
  session = { audio, worker, dropped: 0 };
  worker.onmessage = heard;
  const url = new URL("/session", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const secret = token();
  const open = { url: url.href, protocols: secret ? [PROTOCOL, secret] : [PROTOCOL], greeting };
  worker.postMessage({ open, port }, port ? [port] : []);
}

async function start() {
  const input = chosenInput();
  if (input.kind === "file" && !input.file) {
    $("file").click();
    return;
  }
  $("start").disabled = true;
  notice("");
  state("idle", "starting");
  try {
    const { places } = await greet();
    if (!places) throw new AudioProblem("All of the server's sessions are taken: try again when one has ended.");
    const audio = await Audio.open(input);
    const { port1, port2 } = new MessageChannel();
    connect(audio, { type: "hello", ...audio.greeting, model: $("model").value || null }, port2);
    audio.bridge.port.onmessage = ({ data }) => {
      if (data.report && session) session.report = data.report;
      if (data.recorded) recorded(data.recorded);
    };
    audio.bridge.port.postMessage({ socket: port1 }, [port1]);
    audio.track?.addEventListener("ended", () => stop().then(() => notice("The microphone was disconnected.")));
    audio.start?.();
    listInputs();
  } catch (error) {
    state("idle", "idle");
    notice(error instanceof AudioProblem ? error.message : `This failed: ${error.message}`);
  }
  $("start").disabled = false;
  running();
}

async function stop() {
  if (!session) return;
  const { audio, worker } = session;
  if (recording) await toggleRecording();
  session = null;
  worker.postMessage({ close: true });
  setTimeout(() => worker.terminate(), 1000); // the goodbye is sent first
  await audio?.close();
  $("model").disabled = false;
  state("idle", "idle");
  running();
}

function running() {
  const on = session !== null;
  $("start").textContent = on ? "Stop" : "Start";
  $("start").classList.toggle("running", on);
  $("record").disabled = !on;
  $("input").disabled = on && session.audio !== null;
}

// --- recording ------------------------------------------------------------------------------

let saved = null;

function recorded(sound) {
  if (!recording) return;
  recording.append(sound);
  $("recordtext").textContent = `Save ${clock(recording.seconds)}`;
  if (recording.full) toggleRecording();
}

async function toggleRecording() {
  if (!session || saved) return;
  if (!session.audio) {
    say({ type: "record", on: !session.status?.recording });
    return;
  }
  const port = session.audio.bridge.port;
  if (!recording) {
    recording = new Recording(session.audio.context.sampleRate, session.audio.channels, RECORDING_S);
    port.postMessage({ record: true });
  } else {
    saved = new Promise((done) => setTimeout(done, 100)); // the audio thread hands over the rest
    port.postMessage({ record: false });
    await saved;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(recording.blob());
    link.download = `rtsep-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.wav`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    recording = saved = null;
  }
  $("record").setAttribute("aria-pressed", recording !== null);
  $("recordtext").textContent = recording ? "Save 0:00" : "Record";
}

// --- display --------------------------------------------------------------------------------

const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

function state(kind, text) {
  $("state").dataset.state = kind;
  $("state").textContent = text;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

/** Show the figures and the recording of the server's own stream. */
function station(status) {
  const { device, devices, sample_rate: rate, latency_ms: terms } = status;
  const inputs = [...new Set([...devices, device])];
  if (inputs.join() !== [...$("input").options].map(({ value }) => value).join()) {
    $("input").replaceChildren(...inputs.map((name) => new Option(name)));
    $("input").value = device;
  }
  if (!status.busy) {
    chosen("model", status.model);
    chosen("input", device);
  }
  $("record").setAttribute("aria-pressed", status.recording);
  $("recordtext").textContent = status.not_recording ? "Not recording" : status.recording ? "Stop" : "Record";
  state(status.away ? "lost" : "live", status.away ? "away" : status.busy || "live");
  showLatency($("latency"), $("bar"), $("terms"), terms);
  $("load").textContent = status.real_time_factor.toFixed(3);
  const { p50, p99, max } = status.hop_time_us;
  const hop = { p50: p50 / 1000, p99: p99 / 1000, max: max / 1000 };
  showRows($("loads"), loadRows(status.real_time_factor, "a hop", hop, rate));
  $("misses").textContent = status.deadline_misses;
  const broken = status.nonfinite_in + status.nonfinite_out;
  showRows($("faults"), [
    ["replaced by the input", `${((1000 * status.starved_samples) / rate).toFixed(0)} ms`, status.starved_samples],
    ["left out", `${((1000 * status.dropped_samples) / rate).toFixed(0)} ms`, status.dropped_samples],
    ["xruns of the sound card", status.xruns, status.xruns],
    ["callbacks missed", status.missed_callbacks, status.missed_callbacks],
    ["not a number", broken, broken],
  ]);
}

function figures() {
  if (!session?.report || !session.status) return;
  const { audio, engine, report, status, trip, dropped } = session;
  const { sampleRate } = audio.context;
  if (report.playing) {
    const compute = status.frame_ms.p50;
    const terms = latencyTerms({
      sampleRate, delay: report.delay, trip: trip?.median, compute, engine, browser: audio.terms,
    });
    showLatency($("latency"), $("bar"), $("terms"), terms);
  }
  $("load").textContent = status.real_time_factor.toFixed(3);
  showRows($("loads"), loadRows(status.real_time_factor, "a frame", status.frame_ms, sampleRate));
  $("misses").textContent = report.misses;
  showRows($("faults"), [
    ["replaced by the input", `${((1000 * report.replaced) / sampleRate).toFixed(0)} ms`, report.replaced],
    ["answers too late", report.late, report.late],
    ["dropped by the browser", dropped, dropped],
    ["dropped by the server", status.dropped + status.undelivered, status.dropped + status.undelivered],
    ["not a number", status.nonfinite, status.nonfinite],
  ]);
}

function theme(wanted) {
  document.documentElement.dataset.theme = wanted;
  localStorage.setItem("theme", wanted);
}

function otherTheme() {
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function showBypass() {
  $("separated").setAttribute("aria-pressed", !strips.bypass);
  $("original").setAttribute("aria-pressed", strips.bypass);
}

function bypass(on) {
  strips.setBypass(on);
  showBypass();
}

async function listInputs() {
  const known = [...$("input").options].map(({ value }) => value);
  for (const { deviceId, label } of await microphones()) {
    if (label && !known.includes(deviceId) && deviceId !== "default") {
      $("input").insertBefore(new Option(label, deviceId), $("input").querySelector('[value="demo"]'));
    }
  }
}

// --- controls -------------------------------------------------------------------------------

$("start").onclick = () => (session ? stop() : start());
$("record").onclick = toggleRecording;
$("separated").onclick = () => bypass(false);
$("original").onclick = () => bypass(true);
$("theme").onclick = otherTheme;
$("help").onclick = () => $("keys").showModal();
$("input").onchange = () => {
  if (session && !session.audio) {
    $("input").disabled = true; // until it plays
    say({ type: "device", name: $("input").value });
  } else if ($("input").value === "file") $("file").click();
};
$("file").onchange = () => $("file").files.length && start();
$("model").onchange = () => {
  if (!session) return;
  $("model").disabled = true; // until it is heard
  say({ type: "model", name: $("model").value });
};
$("entry").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  begin();
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("keys").open) return;
  if (event.target.matches("select, input[type=password]")) return;
  const digit = /^Digit([1-9])$/.exec(event.code);
  if (digit) strips.toggle(Number(digit[1]), event.shiftKey ? "solo" : "mute");
  else if (event.code === "Space" && !event.target.matches("button, input")) $("start").hidden || $("start").click();
  else if (event.key === "?") $("keys").showModal();
  else if (event.key.toLowerCase() === "b") bypass(!strips.bypass);
  else if (event.key.toLowerCase() === "r") toggleRecording();
  else if (event.key.toLowerCase() === "t") otherTheme();
  else return;
  event.preventDefault();
});

async function begin() {
  try {
    const { models, device } = await greet();
    $("model").replaceChildren(...models.map((name) => new Option(name)));
    notice("");
    if (device === undefined) listInputs();
    else watch();
  } catch (error) {
    notice(error.message);
    if (session === null && $("start").hidden) setTimeout(begin, AGAIN_MS);
  }
}

/** Show the server's own stream, which runs independently of the page. */
function watch() {
  $("start").hidden = true;
  $("empty")?.remove();
  connect(null, { type: "watch" });
  running();
}

theme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
setInterval(figures, 250);
begin();
