/* The WebSocket, in its own thread, so that drawing and other work of the page do not delay it.
 *
 * Sound is exchanged with the audio thread directly, over a MessagePort; without one, there is no
 * sound. rtsep/ui/protocol.py describes the messages.
 */

const AUDIO = 1;
const HEADER = 8;
const LAG_S = 0.3; // sound that may wait for a slow network; newer sound is dropped until it has gone

let socket = null;
let bridge = null;
let hello = null;
let ready = false;
let dropped = 0;
let waited = [];
const sent = new Map();

function encode(number, sound) {
  const narrow = hello.format === "s16";
  const message = new ArrayBuffer(HEADER + sound.length * (narrow ? 2 : 4));
  const view = new DataView(message);
  view.setUint8(0, AUDIO);
  view.setUint32(4, number, true);
  if (narrow) {
    const samples = new Int16Array(message, HEADER);
    for (let i = 0; i < sound.length; i++) {
      samples[i] = Math.max(-32768, Math.min(32767, Math.round(sound[i] * 32768)));
    }
  } else {
    new Float32Array(message, HEADER).set(sound);
  }
  return message;
}

function decode(message) {
  if (hello.format === "f32") return new Float32Array(message.slice(HEADER));
  const samples = new Int16Array(message, HEADER);
  const sound = new Float32Array(samples.length);
  for (let i = 0; i < samples.length; i++) sound[i] = samples[i] / 32768;
  return sound;
}

function send({ number, sound }) {
  if (!ready || socket.readyState !== WebSocket.OPEN) return;
  const bytes = (LAG_S * hello.sample_rate * hello.channels) * (hello.format === "s16" ? 2 : 4);
  if (socket.bufferedAmount > bytes) {
    dropped += 1;
    return;
  }
  socket.send(encode(number, sound));
  sent.set(number, performance.now());
  if (sent.size > 1024) sent.delete(sent.keys().next().value);
}

function receive(message) {
  const view = new DataView(message);
  const number = view.getUint32(4, true);
  if (view.getUint8(0) !== AUDIO) {
    postMessage({ spectra: message }, [message]);
    return;
  }
  const start = sent.get(number);
  if (start !== undefined) {
    waited.push(performance.now() - start);
    sent.delete(number);
  }
  const sound = decode(message);
  bridge.postMessage({ number, sound }, [sound.buffer]);
}

function open({ url, protocols, port, greeting }) {
  hello = greeting;
  bridge = port;
  if (bridge) bridge.onmessage = ({ data }) => send(data);
  socket = new WebSocket(url, protocols);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify(hello));
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") {
      receive(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "ready") ready = true;
    postMessage({ message });
  };
  socket.onclose = ({ code, reason }) => postMessage({ closed: { code, reason } });
  setInterval(() => {
    waited.sort((a, b) => a - b);
    const at = (share) => waited[Math.min(waited.length - 1, Math.floor(share * waited.length))];
    if (waited.length) postMessage({ trip: { median: at(0.5), p99: at(0.99) }, dropped });
    waited = [];
  }, 1000);
}

onmessage = ({ data }) => {
  if (data.open) open({ ...data.open, port: data.port });
  else if (data.say && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(data.say));
  else if (data.close) socket.close(1000);
};
