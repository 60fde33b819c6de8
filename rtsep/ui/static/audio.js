/* The audio graph of a session: the input goes to the bridge, whose output is played. */

const FRAME = 384; // three of the browser's blocks: 8 ms at 48 kHz, and whole hops of most models

/** An error with a message for the user. */
export class AudioProblem extends Error {}

export async function microphones() {
  if (!navigator.mediaDevices?.enumerateDevices) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId);
}

async function microphone(deviceId) {
  // The browser's own processing would change the mixture and adds latency.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (deviceId) audio.deviceId = { exact: deviceId };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    const reasons = {
      NotAllowedError: "The browser may not use the microphone: allow it beside the address, then start again.",
      NotFoundError: "There is no microphone: plug one in, or choose the demo or a file as the input.",
      OverconstrainedError: "This microphone is not connected any more: choose another one.",
      NotReadableError: "Another program uses the microphone: close it, or choose another one.",
    };
    throw new AudioProblem(reasons[error.name] ?? `The microphone can't be opened: ${error.message}`);
  }
}

async function decoded(context, bytes, name) {
  try {
    return await context.decodeAudioData(bytes);
  } catch {
    throw new AudioProblem(`${name} is no sound that this browser can read.`);
  }
}

export class Audio {
  /** @param input {kind: "microphone", deviceId} | {kind: "demo"} | {kind: "file", file} */
  static async open(input) {
    if (!window.isSecureContext || !window.AudioWorkletNode) {
      throw new AudioProblem(
        "Browsers allow the microphone on https pages and localhost only: start rtsep ui with --certificate, " +
          "or come through a tunnel (the how-to shows both).",
      );
    }
    const audio = new Audio();
    audio.context = new AudioContext({ latencyHint: "interactive" });
    try {
      await audio.connect(input);
    } catch (error) {
      await audio.close();
      throw error;
    }
    return audio;
  }

  async connect(input) {
    const context = this.context;
    await context.audioWorklet.addModule("/static/worklet.js");
    let source;
    if (input.kind === "microphone") {
      this.stream = await microphone(input.deviceId);
      this.track = this.stream.getAudioTracks()[0];
      source = context.createMediaStreamSource(this.stream);
      this.channels = 1;
      this.name = this.track.label;
    } else {
      const response = input.kind === "demo" ? await fetch("/demo.flac") : input.file;
      const buffer = await decoded(context, await response.arrayBuffer(), input.file?.name ?? "The demo");
      source = new AudioBufferSourceNode(context, { buffer, loop: true });
      this.start = () => source.start();
      this.channels = Math.min(2, buffer.numberOfChannels);
      this.name = input.file?.name ?? "the built-in demo";
    }
    this.bridge = new AudioWorkletNode(context, "rtsep-bridge", {
      numberOfInputs: 1,
      numberOfOutputs: 1,
      outputChannelCount: [this.channels],
      channelCount: this.channels,
      channelCountMode: "explicit",
      processorOptions: { frame: FRAME, channels: this.channels },
    });
    source.connect(this.bridge).connect(context.destination);
    await context.resume();
  }

  /** The format of the sound, for the server. */
  get greeting() {
    const near = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
    return {
      sample_rate: this.context.sampleRate,
      channels: this.channels,
      frame: FRAME,
      format: near ? "f32" : "s16",
    };
  }

  /** Latency of the browser outside of the bridge, in ms, as far as it reports it. */
  get terms() {
    const seconds = (value) => (Number.isFinite(value) ? 1000 * value : 0);
    return {
      microphone: seconds(this.track?.getSettings().latency),
      playback: seconds(this.context.baseLatency) + seconds(this.context.outputLatency),
    };
  }

  async close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.bridge?.disconnect();
    if (this.context.state !== "closed") await this.context.close();
  }
}

export { FRAME };
