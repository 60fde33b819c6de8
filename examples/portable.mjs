/* Separate raw float32 samples with a portable graph and onnxruntime-web, in Node or in a browser.
 *
 *   npm install onnxruntime-web
 *   node portable.mjs speech-portable.onnx 128 < mixture.f32 > sources.f32
 *
 * The second argument is the block: samples per call, as `rtsep portable` prints it. The input is one
 * channel at the model's rate; the output has, block after block, the samples of each source.
 */
import { readFileSync, writeSync } from "node:fs";
import * as ort from "onnxruntime-web";

/** A separator of one stream: each call takes a block and returns its sources, one after another. */
export async function open(graph, block) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(graph);
  const size = session.inputMetadata.find(({ name }) => name === "state").shape[1];
  let state = new ort.Tensor("float32", new Float32Array(size), [1, size]);
  return async (samples) => {
    const mixture = new ort.Tensor("float32", samples, [1, 1, block]);
    const { sources, next_state } = await session.run({ mixture, state });
    state = next_state;
    return sources.data;
  };
}

const [, , path, block] = process.argv;
const separate = await open(readFileSync(path), Number(block));
const bytes = readFileSync(0);
const mixture = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
for (let start = 0; start + Number(block) <= mixture.length; start += Number(block)) {
  const sources = await separate(mixture.slice(start, start + Number(block)));
  writeSync(1, new Uint8Array(sources.buffer, sources.byteOffset, sources.byteLength));
}
