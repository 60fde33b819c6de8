/* The model, in a worker: waits for a block of the microphone and writes the block of each source. */

import * as ort from "./ort/ort.wasm.min.mjs";
import { CAPTURED, RUNNING, SEPARATED, SKIPPED } from "./rings.js";

const REPORT_S = 0.5;
const WARM_UP = 20;   // calls before the stream: the first ones are slow
const BEHIND_S = 0.3; // samples that are later than this are skipped, so that newer ones are in time

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1;

self.onmessage = async ({ data }) => {
  try {
    await separate(data.rings, data.figures);
  } catch (error) {
    self.postMessage({ problem: `The model can't be run: ${error.message}` });
  }
};

async function separate(rings, figures) {
  const { block, state: size, sample_rate: rate, sources: names, latency_samples: late } = figures;
  const graph = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const samples = new Float32Array(block);
  const mixture = new ort.Tensor("float32", samples, [1, 1, block]);
  const silence = () => new ort.Tensor("float32", new Float32Array(size), [1, size]);
  let state = silence();
  for (let call = 0; call < WARM_UP; call++) await session.run({ mixture, state });
  self.postMessage({ ready: true });

  const { control, length } = rings;
  const most = BEHIND_S * rate;
  const mask = length - 1;
  let done = Atomics.load(control, CAPTURED);
  let calls = 0;
  let busy = 0;
  let longest = 0;
  Atomics.store(control, SEPARATED, done);
  while (Atomics.load(control, RUNNING)) {
    const captured = Atomics.load(control, CAPTURED);
    const waiting = (captured - done) | 0;
    if (waiting < block) {
      Atomics.wait(control, CAPTURED, captured, 100);
      continue;
    }
    if (waiting > most) { // the machine was busy or slept: go on with the newest block
      const skipped = Math.min(waiting - block, length - late);
      for (let i = 1; i <= skipped; i++) {
        const at = captured - block - i;
        for (const ring of rings.sources) ring[at & mask] = 0;
        rings.sources[0][at & mask] = rings.mixture[(at - late) & mask];
      }
      Atomics.add(control, SKIPPED, Math.ceil(skipped / 128));
      done = (captured - block) | 0;
    }
    for (let i = 0; i < block; i++) samples[i] = rings.mixture[(done + i) & mask];
    const begin = performance.now();
    const result = await session.run({ mixture, state });
    const took = performance.now() - begin;
    state = result.next_state;
    const found = result.sources.data;
    for (let k = 0; k < names.length; k++) {
      for (let i = 0; i < block; i++) rings.sources[k][(done + i) & mask] = found[k * block + i];
    }
    done = (done + block) | 0;
    Atomics.store(control, SEPARATED, done);
    calls += 1;
    busy += took;
    longest = Math.max(longest, took);
    if (calls * block >= REPORT_S * rate) {
      const each = (1000 * block) / rate;
      self.postMessage({ load: busy / calls / each, call: busy / calls, longest, each });
      calls = busy = longest = 0;
    }
  }
}
