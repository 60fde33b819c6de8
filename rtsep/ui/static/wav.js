/* Records the output as a 16-bit WAV file. */

export class Recording {
  constructor(sampleRate, channels, longestS) {
    this.sampleRate = sampleRate;
    this.channels = channels;
    this.most = longestS * sampleRate * channels;
    this.parts = [];
    this.length = 0;
  }

  get seconds() {
    return this.length / this.channels / this.sampleRate;
  }

  get full() {
    return this.length >= this.most;
  }

  append(sound) {
    const samples = new Int16Array(sound.length);
    for (let i = 0; i < sound.length; i++) {
      samples[i] = Math.max(-32768, Math.min(32767, Math.round(sound[i] * 32768)));
    }
    this.parts.push(samples);
    this.length += samples.length;
  }

  blob() {
    const head = new DataView(new ArrayBuffer(44));
    const text = (at, word) => [...word].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
    const bytes = 2 * this.length;
    text(0, "RIFF");
    head.setUint32(4, 36 + bytes, true);
    text(8, "WAVEfmt ");
    head.setUint32(16, 16, true);
    head.setUint16(20, 1, true);
    head.setUint16(22, this.channels, true);
    head.setUint32(24, this.sampleRate, true);
    head.setUint32(28, 2 * this.channels * this.sampleRate, true);
    head.setUint16(32, 2 * this.channels, true);
    head.setUint16(34, 16, true);
    text(36, "data");
    head.setUint32(40, bytes, true);
    return new Blob([head, ...this.parts], { type: "audio/wav" });
  }
}
