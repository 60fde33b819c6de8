"""Separate a file with a portable graph and ONNX Runtime; rtsep is not imported.

rtsep portable speech -o speech-portable.onnx
python examples/portable.py speech-portable.onnx in.wav FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def main(graph, recording, folder):
    session = onnxruntime.InferenceSession(graph)
    told = session.get_modelmeta().custom_metadata_map
    late = int(told["rtsep.latency_samples"])
    (_, channels, block), (_, size) = (value.shape for value in session.get_inputs())
    mixture, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    if (rate, mixture.shape[1]) != (int(told["rtsep.sample_rate"]), channels):
        raise SystemExit(
            f"{recording} must have {told['rtsep.sample_rate']} Hz, {channels} channel"
        )
    blocks = -(-(len(mixture) + late) // block)  # with silence behind, until all has come out
    padded = np.zeros((blocks * block, channels), np.float32)
    padded[: len(mixture)] = mixture
    state, parts = np.zeros((1, size), np.float32), []
    for start in range(0, len(padded), block):
        now = {"mixture": padded[start : start + block].T[None], "state": state}
        sources, state = session.run(["sources", "next_state"], now)
        parts.append(sources[0])
    stems = np.concatenate(parts, axis=2)[:, :, late : late + len(mixture)]
    for name, stem in zip(told["rtsep.sources"].split(","), stems, strict=True):
        soundfile.write(Path(folder) / f"{name}.wav", stem.T, rate, subtype="FLOAT")


if __name__ == "__main__":
    main(*sys.argv[1:])
