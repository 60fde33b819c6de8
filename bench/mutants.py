"""Break lines of the audio path, one at a time, and see whether the everyday tests notice.

python -m bench.mutants [PART ...]    only files of rtsep whose path contains one of the parts

Each break is made in a copy of the sources, where the tests that concern it must fail; without it
they must pass. Kernels are compiled anew for every break: half an hour in all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Break(NamedTuple):
    """One line of a file of ``rtsep``, what it becomes, and tests that must notice."""

    file: str
    line: str
    broken: str
    tests: str


BREAKS = [
    Break(
        "devices/callback.py",
        "gain = np.float32(control.wet) / np.float32(fade)",
        "gain = np.float32(1.0)",
        "devices/test_callback_stream.py",
    ),
    Break(
        "devices/callback.py",
        "if not abs(out[i, channel]) <= LIMIT:",
        "if abs(out[i, channel]) > LIMIT:",
        "devices/test_callback_stream.py",
    ),
    Break(
        "devices/callback_stream.py",
        'self._control["valid_from"] = self.output.written + n + latency',
        'self._control["valid_from"] = self.output.written + n',
        "devices/test_callback_stream.py realtime/test_worker.py realtime/test_compiled_loop.py",
    ),
    Break(
        "devices/drift.py",
        "control.difference += natural * natural * error * seconds",
        "control.difference += 0.0 * error",
        "devices/test_fake.py",
    ),
    Break(
        "devices/paced.py",
        "due = max(start + count * period, before + NEAREST * period)",
        "due = start + count * period",
        "devices/test_paced.py",
    ),
    Break(
        "dsp/fft.py",
        "imaginary[k] = _HALF * (d - roots[0, k] * b + roots[1, k] * c)",
        "imaginary[k] = _HALF * (d - roots[0, k] * b - roots[1, k] * c)",
        "dsp/test_overlap_add.py",
    ),
    Break(
        "dsp/full_band.py",
        "steady = min(level[LOWEST], level[BEFORE])",
        "steady = level[LOWEST]",
        "runtime/test_full_band.py",
    ),
    Break(
        "dsp/mixer.py",
        "late = line[(position - latency) & mask, present]",
        "late = line[(position - latency + 1) & mask, present]",
        "dsp/test_mixer.py",
    ),
    Break(
        "dsp/overlap_add.py",
        "sound = _magnitude(sources[stream, frame]) <= LIMIT",
        "sound = not _magnitude(sources[stream, frame]) > LIMIT",
        "runtime/test_engine.py",
    ),
    Break(
        "dsp/polyphase.py",
        "first = edge // in_period - taps + 1",
        "first = edge // in_period - taps",
        "runtime/test_resampled.py",
    ),
    Break(
        "dsp/ring.py",
        "count: int = min(cursors[WRITTEN, 0] - start, out.shape[0])",
        "count: int = min(cursors[WRITTEN, 0] - start + 1, out.shape[0])",
        "dsp/test_ring.py",
    ),
    Break(
        "dsp/timed_ring.py",
        "if cursors[WRITTEN, 0] - cursors[READ, 0] >= n:",
        "if cursors[WRITTEN, 0] - cursors[READ, 0] > n:",
        "dsp/test_timed_ring.py",
    ),
    Break(
        "dsp/windows.py",
        "rise = 2 * window_length - length",
        "rise = window_length",
        "dsp/test_windows.py",
    ),
    Break(
        "files/readers.py",
        "if position < file.frames:",
        "if position < 0:",
        "files/test_readers.py",
    ),
    Break(
        "files/writers.py",
        "file.truncate(self.length)",
        "pass",
        "files/test_writers.py",
    ),
    Break(
        "realtime/chain.py",
        "own.muted[:] = True",
        "own.muted[:] = False",
        "realtime/test_chain.py",
    ),
    Break(
        "realtime/compiled_loop.py",
        "progress[IN_TIME] = start",
        "progress[IN_TIME] = 0",
        "realtime/test_compiled_loop.py",
    ),
    Break(
        "realtime/crossfade.py",
        "unheard = chain.engine.latency_samples + round(LISTEN_S * sample_rate)",
        "unheard = 0",
        "realtime/test_chain.py realtime/test_control.py",
    ),
    Break(
        "realtime/recorder.py",
        "return min(sound, start - self._time)",
        "return sound",
        "realtime/test_recorder.py",
    ),
    Break(
        "realtime/stem_reader.py",
        "tapped.counters[_LOST] += stems.shape[0] - kept",
        "tapped.counters[_LOST] += 0 * kept",
        "realtime/test_compiled_loop.py test_stream.py",
    ),
    Break(
        "realtime/worker.py",
        "self._progress[IN_TIME] = device.input.position",
        "self._progress[IN_TIME] = 0",
        "realtime/test_compiled_loop.py realtime/test_worker.py",
    ),
    Break(
        "runtime/engine.py",
        "frames.clear(self.state.buffers, stream)",
        "frames.clear(self.state.buffers)",
        "runtime/test_engine.py runtime/test_streams.py",
    ),
    Break(
        "runtime/model_step.py",
        "return lay(bundle, streams, plain.simplified, plain.seen)",
        "return lay(bundle, streams, plain.simplified, [])",
        "runtime/tape",
    ),
    Break(
        "runtime/ort_step.py",
        "interpreter.forget(self.program)",
        "pass",
        "runtime/test_engine.py runtime/test_streams.py",
    ),
    Break(
        "runtime/resampled.py",
        "late = -self.latency_samples * outer",
        "late = -(self.latency_samples + 1) * outer",
        "runtime/test_resampled.py",
    ),
    Break(
        "runtime/states.py",
        "return {key: 1 << max(state.inputs).bit_length() for key, state in states.items()}",
        "return {key: 1 << (max(state.inputs) - 1).bit_length() for key, state in states.items()}",
        "runtime/tape runtime/test_streams.py",
    ),
    Break(
        "runtime/tape/convolutions.py",
        "(reach[0] - after[0], reach[1] - after[1]),",
        "(reach[0] - before[0], reach[1] - before[1]),",
        "runtime/tape",
    ),
    Break(
        "runtime/tape/interpreter.py",
        "memory[out + i] = total * factor",
        "memory[out + i] = total",
        "runtime/tape",
    ),
    Break(
        "runtime/tape/memory_plan.py",
        "if value.copies > 1 or any(a < end and start < b for a, b in self._kept):",
        "if value.copies > 1:",
        "runtime/tape",
    ),
    Break(
        "runtime/tape/recurrent.py",
        "bias[:, : 2 * size] += bias[:, 3 * size : 5 * size]",
        "bias[:, : 2 * size] += 0.0",
        "runtime/tape",
    ),
    Break(
        "runtime/tape_step.py",
        "    step.reset()\n    return step",
        "    return step",
        "runtime/tape",
    ),
]


def told(folder: Path, tests: str) -> tuple[int, str]:
    """Run tests of ``folder``; return pytest's exit code and its last line."""
    paths = [f"tests/{path}" for path in tests.split()]
    options = ["-q", "-x", "-m", "not device", "-p", "no:cacheprovider", "--tb", "no"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *paths],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (failed or lines or [""])[-1]


def noticed(folder: Path, broken: Break) -> bool:
    """Break a line of the copy for as long as its tests run."""
    path = folder / "rtsep" / broken.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(broken.line, broken.broken), encoding="utf-8")
    began = time.monotonic()
    try:
        code, line = told(folder, broken.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    verdict = "noticed " if code == 1 else f"SURVIVED (pytest: {code})"
    print(f"{verdict} {time.monotonic() - began:5.0f} s  {broken.file}: {line}", flush=True)
    return code == 1


def main() -> None:
    """Run the tests unbroken, then with every break; exit with 1 if one is not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts of the files' paths")
    parts = parser.parse_args().parts
    chosen = [b for b in BREAKS if not parts or any(part in b.file for part in parts)]
    if not chosen:
        parser.error(f"no file with {' or '.join(parts)} in its path is broken here")
    with tempfile.TemporaryDirectory(prefix="rtsep-mutants-") as place:
        folder = Path(place) / "copy"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "out", "site")
        shutil.copytree(ROOT, folder, ignore=ignored)
        tests = dict.fromkeys(path for broken in chosen for path in broken.tests.split())
        code, line = told(folder, " ".join(tests))
        if code:
            sys.exit(f"without a break the tests fail: {line}")
        survivors = [broken for broken in chosen if not noticed(folder, broken)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} breaks noticed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
