/* Microphone and loudspeaker, in the browser's audio thread.
 *
 * The microphone's samples go to a ring. A sample of the sources is played `queue` samples after it
 * could be there at the earliest. The queue is set by how late samples are at the start; if one is
 * not there in time, the microphone's sound of that time is played and the queue grows.
 */

import { CAPTURED, SEPARATED, SKIPPED } from "./rings.js";

const SETTLE_S = 0.5;    // at the start, the worker may be busy with other things
const LISTEN_S = 1.5;    // then: how late are the samples here?
const MARGIN_S = 0.03;   // that they should be early
const LONGEST_S = 0.4;   // the queue grows no further
const LOOK_S = 10;       // earliness is watched so long before the queue is shortened
const FADE_S = 0.005;
const REPORT_S = 0.25;

class Player extends AudioWorkletProcessor {
  constructor({ processorOptions: { rings, late } }) {
    super();
    this.rings = rings;
    this.late = late;            // samples that the sources are later than the mixture
    this.mask = rings.length - 1;
    this.now = new Float32Array(rings.weights.length); // weights, on their way to those of the page
    this.captured = 0;
    this.queue = 0;
    this.settling = SETTLE_S * sampleRate;
    this.listening = LISTEN_S * sampleRate;
    this.steps = new Float32Array(this.now.length);
    this.spare = Infinity;       // samples that the sources were early, at least
    this.looked = 0;
    this.missing = false;
    this.misses = 0;
    this.last = 0;               // sample played before
    this.offset = 0;             // that is faded out after a jump
    this.fading = 0;             // samples of that fade still to come
    this.fade = Math.round(FADE_S * sampleRate);
    this.reported = 0;
    this.recording = false;
    this.port.onmessage = ({ data }) => (this.recording = data.recording);
  }

  process([[heard]], [[out]]) {
    const { control, mixture } = this.rings;
    const count = out.length;
    for (let i = 0; i < count; i++) mixture[(this.captured + i) & this.mask] = heard ? heard[i] : 0;
    this.captured = (this.captured + count) | 0;
    Atomics.store(control, CAPTURED, this.captured);
    Atomics.notify(control, CAPTURED);
    const behind = (this.captured - Atomics.load(control, SEPARATED)) | 0;
    if (this.settling > 0) {
      this.settling -= count;
    } else if (this.listening > 0) {
      this.listening -= count;
      this.queue = Math.max(this.queue, behind);
      if (this.listening <= 0) {
        this.queue = Math.round(Math.min(this.queue + MARGIN_S * sampleRate, LONGEST_S * sampleRate));
      }
    } else {
      this.play(out, behind);
    }
    if (this.recording) this.port.postMessage({ sound: out.slice() });
    this.report(count);
    return true;
  }

  play(out, behind) {
    const margin = Math.round(MARGIN_S * sampleRate);
    const missing = behind > this.queue;
    let jump = missing !== this.missing;
    this.spare = Math.min(this.spare, this.queue - behind);
    this.looked += out.length;
    if (this.looked >= LOOK_S * sampleRate) {
      if (this.spare > 2 * margin) {
        this.queue -= this.spare - margin;
        jump = true;
      }
      this.spare = Infinity;
      this.looked = 0;
    }
    if (missing) {
      this.misses += 1;
      const wanted = Math.min(behind + margin, LONGEST_S * sampleRate);
      if (wanted > this.queue) {
        this.queue = Math.round(wanted);
        jump = true;
      }
    }
    this.missing = missing;
    const first = this.captured - this.queue - out.length;
    const { mixture, sources, weights } = this.rings;
    const dry = sources.length;
    for (let k = 0; k <= dry; k++) {
      this.steps[k] = (weights[k] - this.now[k]) / out.length;
    }
    const loudest = Math.max(...weights);
    for (let i = 0; i < out.length; i++) {
      const at = (first + i) & this.mask;
      const sound = mixture[(first + i - this.late) & this.mask];
      let value = 0;
      for (let k = 0; k < dry; k++) value += (this.now[k] += this.steps[k]) * sources[k][at];
      value += (this.now[dry] += this.steps[dry]) * sound;
      if (missing) value = loudest * sound;
      if (jump && i === 0) {
        this.offset = this.last - value;
        this.fading = this.fade;
      }
      if (this.fading > 0) {
        value += (this.offset * this.fading) / this.fade;
        this.fading -= 1;
      }
      out[i] = value;
    }
    this.last = out[out.length - 1];
  }

  report(count) {
    this.reported += count;
    if (this.reported < REPORT_S * sampleRate) return;
    this.reported = 0;
    const misses = this.misses + Atomics.load(this.rings.control, SKIPPED);
    this.port.postMessage({ queue: this.queue, misses, playing: this.listening <= 0 });
  }
}

registerProcessor("rtsep-player", Player);
