/* Latency by its terms, load and misses. */

import { FRAME } from "/static/audio.js";

const HUES = ["#64748b", "#0ea5e9", "#6366f1", "#a855f7", "#ec4899", "#ea7a2b", "#eab308", "#84cc16", "#14b8a6", "#94a3b8"];

const MEANINGS = {
  microphone: "what the browser says of its input",
  framing: "a frame is filled before it is sent",
  network: "there and back, half of all frames",
  compute: "the server's work on a frame, half of them",
  "jitter buffer": "what waits so that late frames are still in time",
  overlap: "window − hop: a sample is complete when its last frame is",
  reblocking: "whole hops are needed where frames don't divide them",
  lookahead: "future frames the model looks at",
  resampling: "the browser's rate is not the model's",
  playback: "what the browser says of its output",
  "device input": "what the sound card says of its input",
  headroom: "time the worker may take for a block",
  "device output": "what the sound card says of its output",
  off: "what the stream is off its terms now",
};

/** All terms in ms; those between capture and playback sum to the delay of the output. */
export function latencyTerms({ sampleRate, delay, trip, compute, engine, browser }) {
  const framing = (1000 * FRAME) / sampleRate;
  const total = (1000 * delay) / sampleRate;
  const travel = Math.min(trip ?? 0, total - framing);
  const work = Math.min(compute ?? 0, travel);
  return {
    microphone: browser.microphone,
    framing,
    network: travel - work,
    compute: work,
    "jitter buffer": total - framing - travel,
    ...engine,
    playback: browser.playback,
  };
}

export function showLatency(output, bar, list, terms) {
  const shown = Object.entries(terms);
  const total = shown.reduce((sum, [, ms]) => sum + ms, 0);
  output.textContent = `${total.toFixed(0)} ms`;
  bar.replaceChildren(
    ...shown.map(([name, ms], i) => {
      const part = document.createElement("div");
      part.style.setProperty("--share", `${(100 * ms) / total}%`);
      part.style.setProperty("--hue", HUES[i % HUES.length]);
      part.title = `${name}: ${ms.toFixed(1)} ms`;
      part.hidden = ms < 0.05;
      return part;
    }),
  );
  list.replaceChildren(
    ...shown.map(([name, ms], i) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      const value = document.createElement("b");
      swatch.className = "swatch";
      swatch.style.setProperty("--hue", HUES[i % HUES.length]);
      value.textContent = ms < 0.05 ? "0" : ms.toFixed(1);
      item.title = MEANINGS[name] ?? "";
      item.append(swatch, name, value);
      return item;
    }),
  );
}

/** @param rows [name, text, whether it is bad] */
export function showRows(list, rows) {
  list.replaceChildren(
    ...rows.map(([name, text, bad]) => {
      const row = document.createElement("div");
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      value.textContent = text;
      value.classList.toggle("bad", Boolean(bad));
      row.append(term, value);
      return row;
    }),
  );
}

/** Rows about the load: share of real time, and processing time of a frame in ms. */
export function loadRows(factor, what, { p50, p99, max }, sampleRate) {
  return [
    ["of real time, on one core", `${(100 * factor).toFixed(1)} %`, factor > 0.8],
    [`${what} takes, median`, `${p50.toFixed(2)} ms`],
    ["p99", `${p99.toFixed(2)} ms`],
    ["most", `${max.toFixed(1)} ms`],
    ["sample rate", `${(sampleRate / 1000).toFixed(1)} kHz`],
  ];
}
