/* Microphone and loudspeaker of a session, in the browser's audio thread.
 *
 * Samples are counted from the start. Input sample n is sent in a frame and played when input sample
 * n + delay arrives, so the latency is one number and stays constant. A reply that is late or missing
 * is replaced by the microphone's sound of that time, with the gain of the loudest audible source and
 * a fade.
 */

const RING_S = 2;          // longest delay that can be played
const FADE_S = 0.005;      // between an answer and what replaces it, and after a change of the delay
const MARGIN_S = 0.004;    // that answers should be early
const LISTEN_S = 0.4;      // at the start: how late are answers here?
const STEP_S = 0.02;       // that the delay grows at most for a late answer,
const STEPS_S = 0.25;      // and at most so often: a single hiccup is no reason to be late for good
const LOOK_S = 10;         // earliness is watched so long before the delay is shortened
const LONGEST_S = 0.6;     // answers later than this are given up
const REPORT_S = 0.25;

class Bridge extends AudioWorkletProcessor {
  constructor({ processorOptions: { frame, channels } }) {
    super();
    this.frame = frame;
    this.channels = channels;
    this.slots = Math.ceil((RING_S * sampleRate) / frame);
    this.length = this.slots * frame;
    this.dry = new Float32Array(this.length * channels);
    this.wet = new Float32Array(this.length * channels);
    this.stamps = new Float64Array(this.slots).fill(-1);
    this.fade = Math.round(FADE_S * sampleRate);
    this.slack = this.fade + 128 + Math.round(MARGIN_S * sampleRate);
    this.engine = 0;         // samples that the answers are later than their frames
    this.loudest = 1;        // gain of the replacement, and its target
    this.gain = 1;
    this.captured = 0;
    this.packet = new Float32Array(frame * channels);
    this.filled = 0;
    this.number = 0;
    this.socket = null;
    this.state = "waiting";  // for the first answer, then "listening", then "playing"
    this.listenUntil = 0;
    this.latest = 0;         // samples that the latest answer took
    this.delay = 0;
    this.before = 0;         // the delay before the last change
    this.changing = 0;       // samples of that fade still to come
    this.share = 0;          // of the answers in what is heard
    this.level = 0;          // rises once, at the start
    this.grown = 0;          // when the delay grew
    this.missing = false;
    this.misses = 0;
    this.replaced = 0;
    this.late = 0;
    this.spare = Infinity;   // samples that answers were early, at least
    this.looked = 0;
    this.reported = 0;
    this.peak = 0;
    this.recording = null;
    this.port.onmessage = ({ data }) => this.control(data);
  }

  control(data) {
    if (data.socket) {
      this.socket = data.socket;
      this.socket.onmessage = (event) => this.answer(event.data.number, event.data.sound);
    }
    if (data.engine !== undefined) this.engine = data.engine;
    if (data.loudest !== undefined) this.loudest = data.loudest;
    if (data.record !== undefined) {
      if (this.recording) this.flush();
      this.recording = data.record ? { block: new Float32Array(4096 * this.channels), filled: 0 } : null;
    }
  }

  /** Store a reply and update the delay by its arrival time. */
  answer(number, sound) {
    const first = number * this.frame;
    const took = this.captured - first;
    if (this.state === "waiting") {
      this.state = "listening";
      this.listenUntil = this.captured + LISTEN_S * sampleRate;
    }
    if (this.state === "listening") {
      this.latest = Math.max(this.latest, took);
    } else {
      const early = this.delay - took - this.slack;
      this.spare = Math.min(this.spare, early);
      if (took > this.delay) this.late += 1;
      if (early < 0 && this.captured - this.grown > STEPS_S * sampleRate) {
        this.grown = this.captured;
        this.setDelay(this.delay + Math.min(-early, STEP_S * sampleRate));
      }
    }
    if (took > this.length - this.frame) return;
    const slot = number % this.slots;
    this.wet.set(sound, slot * this.frame * this.channels);
    this.stamps[slot] = number;
  }

  setDelay(samples) {
    const delay = Math.min(Math.ceil(samples), Math.round(LONGEST_S * sampleRate));
    if (delay === this.delay || this.changing) return;
    this.before = this.delay;
    this.delay = delay;
    this.changing = this.fade;
    this.spare = Infinity;
    this.looked = this.captured;
  }

  /** Whether replies contain the sample; before the first sample there is silence. */
  has(sample) {
    if (sample < 0) return true;
    const number = Math.floor(sample / this.frame);
    return this.stamps[number % this.slots] === number;
  }

  /** Output for sample `at`: the reply, the microphone, or a mix during a fade. */
  sample(at, channel, share) {
    if (at < 0) return 0;
    let heard = 0;
    if (share > 0 && this.has(at)) heard += share * this.wet[(at % this.length) * this.channels + channel];
    else share = 0;
    const direct = at - this.engine;
    if (share < 1 && direct >= Math.max(0, this.captured + 128 - this.length)) {
      heard += (1 - share) * this.gain * this.dry[(direct % this.length) * this.channels + channel];
    }
    return heard;
  }

  capture(input) {
    const n = input.length ? input[0].length : 128;
    for (let i = 0; i < n; i++) {
      const cell = ((this.captured + i) % this.length) * this.channels;
      for (let c = 0; c < this.channels; c++) {
        const value = input.length ? input[Math.min(c, input.length - 1)][i] : 0;
        this.dry[cell + c] = value;
        this.packet[this.filled * this.channels + c] = value;
      }
      if (++this.filled === this.frame) {
        if (this.socket) {
          this.socket.postMessage({ number: this.number, sound: this.packet }, [this.packet.buffer]);
        }
        this.number += 1;
        this.packet = new Float32Array(this.frame * this.channels);
        this.filled = 0;
      }
    }
    return n;
  }

  play(output, n) {
    const start = this.captured - this.delay;
    // A fade out starts while there are still replies.
    const there = this.has(start + n - 1) && this.has(start + n - 1 + this.fade);
    if (!there && !this.missing) this.misses += 1;
    if (!there) this.replaced += n;
    this.missing = !there;
    const step = 1 / this.fade;
    for (let i = 0; i < n; i++) {
      this.share = Math.min(1, Math.max(0, this.share + (there ? step : -step)));
      this.level = Math.min(1, this.level + step);
      this.gain += Math.min(step, Math.max(-step, this.loudest - this.gain));
      const change = this.changing > 0 ? this.changing-- / this.fade : 0;
      for (let c = 0; c < output.length; c++) {
        const channel = Math.min(c, this.channels - 1);
        let heard = this.sample(start + i, channel, this.share);
        if (change) {
          const other = this.sample(this.captured - this.before + i, channel, this.share);
          heard += change * (other - heard);
        }
        heard *= this.level;
        heard = heard > 1 ? 1 : heard < -1 ? -1 : heard === heard ? heard : 0;
        output[c][i] = heard;
        this.peak = Math.max(this.peak, Math.abs(heard));
      }
    }
  }

  keep(output, n) {
    const { block, filled } = this.recording;
    for (let i = 0; i < n; i++) {
      for (let c = 0; c < this.channels; c++) {
        block[(filled + i) * this.channels + c] = output[Math.min(c, output.length - 1)][i];
      }
    }
    this.recording.filled += n;
    if (this.recording.filled + n > block.length / this.channels) this.flush();
  }

  flush() {
    const { block, filled } = this.recording;
    const part = block.slice(0, filled * this.channels);
    this.port.postMessage({ recorded: part }, [part.buffer]);
    this.recording.filled = 0;
  }

  process([input], [output]) {
    const n = output[0].length;
    if (this.state === "listening" && this.captured >= this.listenUntil) {
      this.state = "playing";
      this.delay = this.before = Math.ceil(this.latest + this.slack + this.frame / 2);
      this.share = 1;
      this.looked = this.captured;
    }
    if (this.state === "playing") {
      this.play(output, n);
      if (this.captured - this.looked > LOOK_S * sampleRate) {
        // Half of the unused part, so that occasional delays are still covered.
        if (this.spare > this.frame && this.spare < Infinity) this.setDelay(this.delay - this.spare / 2);
        this.spare = Infinity;
        this.looked = this.captured;
      }
    }
    if (this.recording) this.keep(output, n);
    this.captured += this.capture(input);
    if (this.captured - this.reported >= REPORT_S * sampleRate) {
      this.reported = this.captured;
      const { state, delay, misses, replaced, late, peak } = this;
      this.port.postMessage({ report: { playing: state === "playing", delay, misses, replaced, late, peak } });
      this.peak = 0;
    }
    return true;
  }
}

registerProcessor("rtsep-bridge", Bridge);
