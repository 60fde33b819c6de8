"""The program that runs a portable graph: 15 lines of Python with ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path

from rtsep.portable.graph import Portable

_PROGRAM = """\
import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession({path!r})
mixture, rate = soundfile.read("in.wav", dtype="float32", always_2d=True)
assert rate == {rate} and mixture.shape[1] == {channels}
state = np.zeros((1, {state}), np.float32)  # a new stream starts from zeros
parts = []
for start in range(0, len(mixture) - {last}, {block}):
    block = mixture[start : start + {block}].T[None]
    sources, state = session.run(["sources", "next_state"], {{"mixture": block, "state": state}})
    parts.append(sources[0])  # (sources, channels, {block}), {latency} samples late
for name, stem in zip({names}, np.concatenate(parts, axis=2)):
    soundfile.write(f"{{name}}.wav", stem.T, rate)
"""


def program(portable: Portable, path: Path) -> str:
    """Return a program that separates ``in.wav`` with the graph in the file ``path``."""
    return _PROGRAM.format(
        path=str(path),
        rate=portable.spec.sample_rate,
        channels=portable.channels,
        state=portable.state_size,
        block=portable.block,
        last=portable.block - 1,
        latency=portable.latency_samples,
        names=[*portable.spec.sources],
    )
