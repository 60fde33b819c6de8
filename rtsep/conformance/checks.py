"""Checks of a bundle, each with its figure; a failed one raises `ContractError`."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from rtsep.errors import ContractError
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import ModelStep, make_step
from rtsep.spec import Float32

TOLERANCE = 1e-5
"""Largest difference between outputs that should be equal, relative to full scale."""
STREAMS_TOLERANCE = 1e-3
"""The same between one stream and several, which other kernels compute."""
MAX_SCALE = 100.0
"""Largest output for an input of full scale."""
SILENCE_S = 720.0
"""Silence per level of strictness."""
SILENCE_LIMIT_S = 6.0
"""Time that the check of silence takes at most, per level of strictness."""
SPEECH = Path(__file__).parents[1] / "demo-speech.flac"
"""Speech to find the delay with."""
SLOWER = 3.0
"""Largest ratio of a hop's time in silence to that in noise."""


@dataclass
class Subject:
    """A bundle under test.

    Attributes
    ----------
    bundle
        The model.
    strictness
        1 to 10: more sound, more cases.
    seed
        Seed of the noise.
    """

    bundle: Bundle
    strictness: int = 5
    seed: int = 0
    _steps: dict[int, ModelStep] = field(default_factory=dict, repr=False)

    def step(self, streams: int = 1) -> ModelStep:
        """Return a reset step for a number of streams."""
        if streams not in self._steps:
            self._steps[streams] = make_step(self.bundle, streams)
        self._steps[streams].reset()
        return self._steps[streams]

    def engine(self, block: int = 1, streams: int = 1) -> Engine:
        """Return a new engine with zero state."""
        spec = self.bundle.spec
        return Engine(self.step(streams), spec, streams * spec.channels, block)

    def noise(self, hops: int, streams: int = 1, salt: int = 0) -> Float32:
        """Return noise at -20 dB, (samples, channels)."""
        spec = self.bundle.spec
        luck = np.random.default_rng((self.seed, salt))
        shape = hops * spec.step_length, streams * spec.channels
        return (0.1 * luck.standard_normal(shape)).astype(np.float32)

    def hops(self, count: int) -> int:
        """Return a number of hops that grows with the strictness; ``count`` at 5."""
        return max(8, count * self.strictness // 5)


def run(engine: Engine, sound: Float32, sizes: Sequence[int]) -> Float32:
    """Separate a sound in blocks of the given sizes, repeated; return (n, sources, channels)."""
    parts, start, k = [], 0, 0
    while start < len(sound):
        block = np.ascontiguousarray(sound[start : start + sizes[k % len(sizes)]])
        parts.append(engine.process(block))
        start += len(block)
        k += 1
    return np.concatenate(parts)


def finite(subject: Subject) -> str:
    """Output for silence, noise, full scale, an impulse and faint noise is finite and bounded."""
    engine = subject.engine(subject.bundle.spec.step_length)
    noise = subject.noise(subject.hops(20))
    impulse = np.zeros_like(noise)
    impulse[len(noise) // 2] = 1.0
    largest = 0.0
    for name, sound in {
        "silence": np.zeros_like(noise),
        "noise": noise,
        "full scale": np.sign(noise),
        "silence after full scale": np.zeros_like(noise),
        "an impulse": impulse,
        "noise at -120 dB": 1e-5 * noise,
        "a constant": np.ones_like(noise),
    }.items():
        made = run(engine, sound.astype(np.float32), [subject.bundle.spec.step_length * 4])
        if engine.nonfinite_out or not np.all(np.isfinite(made)):
            raise ContractError(f"the output for {name} has NaN or Inf")
        largest = max(largest, float(np.max(np.abs(made))))
        if largest > MAX_SCALE:
            raise ContractError(f"the output for {name} reaches {largest:.0f} times full scale")
    return f"largest output {largest:.2f} for full scale"


def blocks(subject: Subject) -> str:
    """Output is the same for every block size, smaller and larger than the hop."""
    hop = subject.bundle.spec.step_length
    sound = subject.noise(subject.hops(20))
    expected = run(subject.engine(), sound, [hop])
    luck = np.random.default_rng(subject.seed)
    cases = [[hop - 1 or 1], [3 * hop + 1], [1, hop, 7], [16], [64, 480]]
    cases += luck.integers(1, 4 * hop, (subject.strictness, 5)).tolist()
    worst = 0.0
    for sizes in cases:
        made = run(subject.engine(), sound, sizes)
        worst = max(worst, _difference(made, expected, f"blocks of {sizes} samples change it"))
    engine = subject.engine(hop)
    late = subject.engine().latency_samples - engine.latency_samples
    made = run(engine, sound, [hop])
    worst = max(
        worst, _difference(made[: len(made) - late], expected[late:], "whole hops change it")
    )
    return f"{len(cases) + 1} block sizes, difference {worst:.1e}"


def causal(subject: Subject) -> str:
    """Output does not depend on later samples."""
    sound = subject.noise(subject.hops(20))
    expected = run(subject.engine(), sound, [subject.bundle.spec.step_length])
    luck = np.random.default_rng(subject.seed)
    for _ in range(1 + subject.strictness // 2):
        first = int(luck.integers(1, len(sound)))
        other = sound.copy()
        other[first:] = 0.5
        made = run(subject.engine(), other, [subject.bundle.spec.step_length])
        _difference(made[:first], expected[:first], f"sample {first} changes earlier output")
    return f"{1 + subject.strictness // 2} changes of the future"


def aligned(subject: Subject) -> str:
    """The sum of the sources is late by the declared latency."""
    return _alignment(subject, None)


def first_source_aligned(subject: Subject) -> str:
    """The first source is late by the declared latency."""
    return _alignment(subject, 0)


def _alignment(subject: Subject, source: int | None) -> str:
    spec = subject.bundle.spec
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    speech = soxr.resample(speech[: 4 * rate], rate, spec.sample_rate).astype(np.float32)
    channels = spec.channels
    engine = subject.engine()
    sound = np.repeat(speech[:, None], channels, axis=1)
    made = run(engine, sound, [spec.step_length * 8])[:, :, 0]
    heard = (made.sum(axis=1) if source is None else made[:, source])[engine.latency_samples :]
    speech = speech[: len(heard)]
    size = 1 << (2 * len(speech) - 1).bit_length()
    likeness = np.fft.irfft(
        np.fft.rfft(heard.astype(np.float64), size) * np.conj(np.fft.rfft(speech, size)), size
    )
    norm = float(np.linalg.norm(heard) * np.linalg.norm(speech))
    if not norm > 0.0 or likeness.max() < 0.1 * norm:
        raise ContractError("the output for speech is not like speech: its delay can't be found")
    lag = int(np.argmax(likeness))
    lag -= size if lag > size // 2 else 0
    if abs(lag) > spec.hop_length // 4:
        raise ContractError(
            f"the output is {lag} samples later than declared: delay and lookahead are wrong"
        )
    return f"{lag} samples from the declared latency"


def state(subject: Subject) -> str:
    """A reset restores the start, and streams that share a step are independent."""
    hop = subject.bundle.spec.step_length
    sound, channels = subject.noise(subject.hops(12)), subject.bundle.spec.channels
    engine = subject.engine(hop)
    expected = run(engine, sound, [hop])
    engine.reset()
    again = _difference(run(engine, sound, [hop]), expected, "the output after a reset differs")
    other = subject.noise(subject.hops(12), salt=1)
    both = np.concatenate([other, sound], axis=1)
    made = run(subject.engine(hop, streams=2), both, [hop])
    apart = _difference(
        made[:, :, channels:], expected, "a second stream changes it", STREAMS_TOLERANCE
    )
    return f"after a reset {again:.1e}, beside a second stream {apart:.1e}"


def not_a_number(subject: Subject) -> str:
    """NaN and Inf in the input count as silence."""
    hop = subject.bundle.spec.step_length
    sound = subject.noise(subject.hops(12))
    luck = np.random.default_rng(subject.seed)
    broken, plain = sound.copy(), sound.copy()
    for value in (np.nan, np.inf, -np.inf):
        at = luck.integers(0, len(sound), 3)
        broken[at], plain[at] = value, 0.0
    engine = subject.engine(hop)
    made = run(engine, broken, [hop])
    if not np.all(np.isfinite(made)):
        raise ContractError("NaN in the input reaches the output")
    expected = run(subject.engine(hop), plain, [hop])
    difference = _difference(made, expected, "NaN in the input is not silence")
    return f"{engine.nonfinite_in} values replaced, difference {difference:.1e}"


def silence(subject: Subject) -> str:
    """Long silence keeps output finite, and a hop as fast as in noise."""
    spec = subject.bundle.spec
    hop = spec.step_length
    engine = subject.engine(hop)
    noise = subject.noise(50)
    out = np.zeros((hop, len(spec.sources), spec.channels), np.float32)
    block = np.zeros((hop, spec.channels), np.float32)
    usual = _hop_times(engine, noise, out)
    wanted = round(SILENCE_S * subject.strictness * spec.sample_rate / hop)
    done, start = 0, time.perf_counter()
    limit = SILENCE_LIMIT_S * subject.strictness
    while done < wanted and time.perf_counter() - start < limit:
        for _ in range(100):
            engine.process(block, out)
        done += 100
    late = _hop_times(engine, np.zeros_like(noise), out)
    if not np.all(np.isfinite(out)) or engine.nonfinite_out:
        raise ContractError("the output becomes NaN or Inf in silence")
    hours = done * hop / spec.sample_rate / 3600
    # The fastest tenth: other programs delay the rest.
    ratio = float(np.quantile(late, 0.1) / np.quantile(usual, 0.1))
    if ratio > SLOWER:
        raise ContractError(f"a hop takes {ratio:.1f} times as long after {hours:.2f} h of silence")
    made = run(engine, noise, [hop])
    largest = float(np.max(np.abs(made)))
    if not largest <= MAX_SCALE or engine.nonfinite_out:
        raise ContractError(f"after {hours:.2f} h of silence the output reaches {largest:.0f}")
    return f"{hours:.2f} h, hop time {ratio:.2f} of that in noise"


def resources(subject: Subject) -> str:
    """A hop is done in time and allocates nothing."""
    spec = subject.bundle.spec
    hop = spec.step_length
    engine = subject.engine(hop)
    noise = subject.noise(subject.hops(200))
    out = np.zeros((hop, len(spec.sources), spec.channels), np.float32)
    times = _hop_times(engine, noise, out)
    period = hop / spec.sample_rate
    median, late = float(np.median(times)), float(np.quantile(times, 0.99))
    if median > period:
        raise ContractError(
            f"a hop takes {1e3 * median:.1f} ms, longer than its {1e3 * period:.1f} ms"
        )
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    _hop_times(engine, noise[: 20 * hop], out, keep=False)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    grown = after - before
    if grown > 4096:
        raise ContractError(f"20 hops leave {grown} bytes behind")
    return (
        f"{1e6 * median:.0f} µs of {1e6 * period:.0f}, p99 {1e6 * late:.0f} µs; "
        f"{max(grown, 0)} bytes kept after 20 hops"
    )


def saved_state(subject: Subject) -> str:
    """A stream continues from a copy of its state as it would have without a break."""
    hop = subject.bundle.spec.step_length
    step = subject.step()
    spec = subject.bundle.spec
    luck = np.random.default_rng(subject.seed)
    shape = (2 * subject.hops(10), *step.mixture.shape)
    frames = (0.1 * hop**0.5 * luck.standard_normal(shape)).astype(np.float32)
    half = len(frames) // 2

    def go(part: Float32) -> Float32:
        made = []
        for frame in part:
            step.mixture[:] = frame
            step()
            made.append(step.sources.copy())
        return np.stack(made)

    go(frames[:half])
    program = step.program
    saved = [x.copy() for x in (program.memory, program.known, program.cursors)]
    expected = go(frames[half:])
    go(frames[:half])
    program.memory[:], program.known[:], program.cursors[:] = saved
    scale = max(float(np.max(np.abs(expected))), 1.0)
    difference = _difference(
        go(frames[half:]) / scale, expected / scale, "a restored state differs"
    )
    kib = subject.bundle.state_bytes / 1024
    return f"{kib:.1f} kB per stream of {spec.sample_rate} Hz, difference {difference:.1e}"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "finite": finite,
    "block sizes": blocks,
    "causality": causal,
    "alignment": aligned,
    "state": state,
    "NaN in": not_a_number,
    "saved state": saved_state,
    "time and memory": resources,
    "silence": silence,
}
"""Checks of `rtsep validate` by name, in order."""
BEFORE_WRITING: dict[str, Callable[[Subject], str]] = {
    "finite": finite,
    "block sizes": blocks,
    "causality": causal,
    "alignment": first_source_aligned,
    "state": state,
}
"""Those of `rtsep adopt`."""


def _hop_times(engine: Engine, sound: Float32, out: Float32, keep: bool = True) -> list[float]:
    """Separate hop by hop; return the time of each in seconds, if asked to keep them."""
    hop = len(out)
    times: list[float] = []
    for start in range(0, len(sound) - hop + 1, hop):
        begin = time.perf_counter()
        engine.process(sound[start : start + hop], out)
        if keep:
            times.append(time.perf_counter() - begin)
    return times


def _difference(
    made: Float32, expected: Float32, fault: str, tolerance: float = TOLERANCE
) -> float:
    """Return the largest difference; raise if it is above the tolerance."""
    difference = float(np.max(np.abs(made - expected), initial=0.0))
    if not difference <= tolerance:
        raise ContractError(f"{fault}, by {difference:.1e}")
    return difference
