/* Memory that page, audio thread and worker share.
 *
 * Positions count samples from the start and wrap at 32 bits; differences are taken with `| 0`, and a
 * place in a ring is the lowest bits of a position.
 */

export const CAPTURED = 0;   // position after the newest sample of the microphone
export const SEPARATED = 1;  // position after the newest sample of the sources
export const RUNNING = 2;
export const SKIPPED = 3;    // number of the audio thread's blocks that the model left out
const LENGTH = 1 << 15;      // of a ring, in samples

/** Allocate the rings of a stream with that many sources. */
export function allocate(sources) {
  return {
    length: LENGTH,
    control: new Int32Array(new SharedArrayBuffer(16)),
    mixture: new Float32Array(new SharedArrayBuffer(4 * LENGTH)),
    sources: Array.from({ length: sources }, () => new Float32Array(new SharedArrayBuffer(4 * LENGTH))),
    weights: new Float32Array(new SharedArrayBuffer(4 * (sources + 1))), // of the sources, and the mixture
  };
}
