"""Run hours of a live stream in minutes: drift, overload and random faults, simulated clock.

python -m bench.soak drift [--hours 8]        two clocks 300 ppm apart, late callbacks
python -m bench.soak overload [--hours 1]     the worker is suspended for 50 ms every 10 s
python -m bench.soak faults [--scripts 1000]  random scripts of faults
python -m bench.soak model --model NAME       a model's own calls, in speech and silence

The stream is built as that of `rtsep run`, by `rtsep.realtime.builder`; the model only waits,
except in the last trial.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
import soxr

import rtsep
from rtsep import weights
from rtsep.devices.fake import Away, Bad, Blocks, Event, FakeDevice, Hold, Rate
from rtsep.realtime.builder import Stream
from rtsep.runtime.bundle import Bundle, describe, parse
from rtsep.spec import Float32, Spec

RATE = 48_000
HOP = 32
"""Hop of the model; latencies and device blocks here are multiples of it."""


def waiting(latency: int, gain: float) -> Bundle:
    """Return a model whose only stem is the mixture times ``gain``, ``latency`` samples late."""
    frames, frame = latency // HOP, ["streams", 1, 1, HOP]
    past = f"state.past@{frames}"
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Mul", [past if frames else "mixture", "gain"], ["stem"]),
        node("Unsqueeze", ["stem", "axes"], ["sources"]),
    ]
    inputs = [value("mixture", onnx.TensorProto.FLOAT, frame)]
    outputs = [value("sources", onnx.TensorProto.FLOAT, ["streams", 1, 1, 1, HOP])]
    if frames:
        nodes.append(node("Identity", ["mixture"], ["next_state.past"]))
        inputs.append(value(past, onnx.TensorProto.FLOAT, frame))
        outputs.append(value("next_state.past", onnx.TensorProto.FLOAT, frame))
    numbers = {"gain": np.full(1, gain, np.float32), "axes": np.array([2])}
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in numbers.items()]
    graph = onnx.helper.make_graph(nodes, "waiting", inputs, outputs, weights)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )
    named = "name", "model", "training", "licence", "quality", "version"
    spec = Spec(RATE, 1, "waveform", "rectangular", HOP, HOP, 1, latency // HOP, ("all",))
    for key, text in describe(spec, dict.fromkeys(named, "waiting")).items():
        model.metadata_props.add(key=key, value=text)
    return parse(model.SerializeToString())


def stream(device: FakeDevice, latency: int, gain: float = 1.0) -> Stream:
    """Return a stream on a fake device, which drives it."""
    made = Stream(waiting(latency, gain), device)
    device.start()
    return made


def memory_mb() -> float:
    """Return the current memory of this process in MB."""
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path to speak of
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


class Tone:
    """A tone by absolute time; the phase of the output gives the latency."""

    def __init__(self, rate: float, block: int, hz: float = 25.0) -> None:
        self._rate, self._hz, self._times = rate, hz, np.arange(block)
        self.late_ms: list[float] = []

    def speak(self, start: int, block: Float32) -> None:
        """Fill a block of the microphone."""
        times = (start + self._times) / self._rate
        block[:] = np.sin(2 * np.pi * self._hz * times)[:, None]

    def hear(self, start: int, block: Float32) -> None:
        """Measure the phase every ten seconds; the block contains whole periods."""
        if start % (10 * RATE):
            return
        turn = np.exp(-2j * np.pi * self._hz * (start + self._times) / RATE)
        phase = -np.angle(1j * np.sum(block[:, 0] * turn)) / (2 * np.pi)
        self.late_ms.append(phase % 1.0 / self._hz * 1000)


def drift(hours: float = 8.0, ppm: float = 300.0, jitter_s: float = 0.002) -> dict[str, Any]:
    """Run two clocks; report dropouts, the latency's change and the memory's growth."""
    block = 1920  # one period
    clock = RATE * (1 + ppm * 1e-6)
    tone = Tone(clock, block)
    device = FakeDevice(
        RATE,
        1,
        1,
        block,
        block,
        tone.speak,
        tone.hear,
        jitter_s=jitter_s,
        own_clock_hz=RATE,
        drift=ppm * 1e-6,
    )
    live = stream(device, 480).worker
    corrections: list[float] = []
    device.run(live.turn, 120.0)
    gc.collect()
    before, began = memory_mb(), len(tone.late_ms)
    start = time.perf_counter()
    for _ in range(round(hours * 60)):
        device.run(live.turn, 60.0)
        corrections.append(1e6 * float(device.correction))
    gc.collect()
    stats = device.stats()
    late = tone.late_ms[began:]
    return {
        "hours": hours,
        "seconds": round(time.perf_counter() - start, 1),
        "dropouts": stats.starvations + stats.slips,
        "latency_change_ms": round(float(np.mean(late[-6:]) - np.mean(late[:6])), 3),
        "latency_range_ms": round(max(late) - min(late), 3),
        "correction_ppm": [round(min(corrections), 1), round(max(corrections), 1)],
        "memory_growth_mb": round(memory_mb() - before, 3),
    }


def overload(hours: float = 1.0, on_for_s: float = 0.05, every_s: float = 10.0) -> dict[str, Any]:
    """Suspend the worker repeatedly; report the output and the time to recover."""
    block, headroom, latency = 128, 512, 960
    count = round(hours * 3600 / every_s)
    holds = [Hold(every_s * (i + 0.5), on_for_s) for i in range(count)]
    loud, step, silence, quiet = 0.5, 0.0, 0, 0
    back: list[float] = []
    times = np.arange(block)
    newest = np.zeros(1, np.float32)

    def speak(start: int, heard: Float32) -> None:
        heard[:] = (loud * np.cos(2 * np.pi * 50.0 * (start + times) / RATE))[:, None]

    def hear(start: int, played: Float32) -> None:
        nonlocal step, silence, quiet
        joined = np.concatenate([newest, played[:, 0]])
        newest[:] = joined[-1]
        if start > latency + headroom + block:
            step = max(step, float(np.abs(np.diff(joined)).max()))
            sounding = np.flatnonzero(np.abs(played[:, 0]) > 1e-4)
            silence = max(silence, quiet + (sounding[0] if len(sounding) else block))
            silence = max(silence, int(np.diff(sounding).max(initial=1)) - 1)
            quiet = block - 1 - sounding[-1] if len(sounding) else quiet + block
        ended = device.now - every_s / 2 - on_for_s
        if ended > 0:
            since = ended % every_s
            delayed = (start + times - latency - headroom) / RATE
            wanted = -loud * np.cos(2 * np.pi * 50.0 * delayed)
            if np.abs(played[:, 0] - wanted).max() > 1e-4 and since < every_s / 2:
                back.append(since)

    device = FakeDevice(RATE, 1, 1, block, headroom, speak, hear, script=holds)
    live = stream(device, latency, gain=-1.0).worker
    start = time.perf_counter()
    device.run(live.turn, hours * 3600 + 5.0)
    stats = device.stats()
    return {
        "hours": hours,
        "seconds": round(time.perf_counter() - start, 1),
        "overloads": count,
        "misses": stats.starvations,
        "starved_samples": stats.starved_samples,
        "starved_by_script": _starved(holds, block, headroom),
        "longest_ms": round(1000 * stats.longest_starvation / RATE, 2),
        "longest_silence_ms": round(1000 * silence / RATE, 2),
        "largest_step": round(step, 5),
        "step_allowed": round(2 * np.pi * 50.0 / RATE * loud + 2 * loud / (0.005 * RATE), 5),
        "recovered_after_ms": round(1000 * max(back, default=0.0), 1),
        "late_at_end": stats.late,
    }


def _starved(holds: list[Hold], block: int, headroom: int) -> int:
    """Return the samples without output: callbacks within a hold, less the headroom."""
    total = 0
    for hold in holds:
        first = int(np.ceil(hold.at * RATE / block - 1e-6))
        behind = int(np.ceil((hold.at + hold.lasting) * RATE / block - 1e-6))
        total += max(behind - first - headroom // block, 0) * block
    return total


def faults(script: list[Event]) -> dict[str, int]:
    """Run one script and some time more; report the counters."""
    nonfinite, block = 0, 64
    random = np.random.default_rng(len(script))

    def speak(start: int, heard: Float32) -> None:
        heard[:] = random.uniform(-1, 1, heard.shape)

    def hear(start: int, played: Float32) -> None:
        nonlocal nonfinite
        nonfinite += int((~np.isfinite(played)).sum())

    device = FakeDevice(RATE, 1, 2, block, 8 * block, speak, hear, script=script, jitter_s=0.001)
    made = stream(device, 480)
    live = made.worker
    still = 3
    while still:
        device.run(live.turn, 1.0)
        if not device.active:
            made.comeback.wait(lambda: False)
        device = live.device  # type: ignore[assignment]
        still = 3 if device.unfinished else still - 1
    stats = device.stats()
    before = stats.starved_samples
    device.run(live.turn, 1.0)
    return {
        "nonfinite_played": nonfinite,
        "nonfinite_heard": stats.nonfinite,
        "absences": device.absences,
        "rates": made.comeback.losses,
        "late": stats.late,
        "starved": before,
        "starved_at_end": device.stats().starved_samples - before,
        "unanswered": device.input.written - device.input.position,
        "fading": device.fading,
    }


def expected(script: list[Event]) -> dict[str, int]:
    """Return the counters that `faults` must report; ``starved`` only if it must be 0."""
    held = any(isinstance(event, Hold) for event in script)
    rates = [RATE, *(event.rate for event in _in_order(script) if isinstance(event, Rate))]
    return {
        "nonfinite_played": 0,
        "nonfinite_heard": sum(event.samples for event in script if isinstance(event, Bad)),
        "absences": sum(isinstance(event, Away | Rate) for event in script),
        "rates": len(rates) - 1,
        "late": 0,
        "starved_at_end": 0,
        "fading": False,
        **({} if held else {"starved": 0}),
    }


def _in_order(script: list[Event]) -> list[Event]:
    return sorted(script, key=lambda event: event.at)


def random_script(random: np.random.Generator, seconds: float = 6.0) -> list[Event]:
    """Return up to eight random faults within ``seconds``."""
    script: list[Event] = []
    for _ in range(random.integers(0, 9)):
        at = float(random.uniform(0, seconds))
        kind = random.integers(5)
        if kind == 0:
            script.append(Hold(at, float(random.exponential(0.2))))
        elif kind == 1:
            script.append(Away(at, float(random.exponential(3.0))))
        elif kind == 2:
            value = [np.nan, np.inf, -np.inf][random.integers(3)]
            script.append(Bad(at, int(random.integers(1, 5000)), value))
        elif kind == 3:
            script.append(Blocks(at, int(random.integers(1, 400))))
        else:
            script.append(Rate(at, [16_000, 44_100, 48_000, 96_000][random.integers(4)]))
    return script


def model(name: str, hours: float = 1.0) -> dict[str, Any]:
    """Run a model for long; report dropouts, replaced output, levels and the memory's growth."""
    block = 128
    sound, rate = soundfile.read(Path(rtsep.__file__).with_name("demo.flac"), dtype="float32")
    sound = soxr.resample(sound if sound.ndim == 1 else sound[:, 0], rate, RATE)
    sound = np.concatenate([sound, np.zeros(10 * RATE, np.float32)])  # then silence
    sound = sound[: len(sound) // block * block].astype(np.float32)
    largest = 0.0

    def speak(start: int, heard: Float32) -> None:
        at = start % len(sound)
        heard[:] = sound[at : at + block, None]

    def hear(start: int, played: Float32) -> None:
        nonlocal largest
        largest = max(largest, float(np.abs(played).max()))

    device = FakeDevice(RATE, 1, 1, block, 4 * block, speak, hear)
    live = Stream(weights.find(name), device).worker
    device.start()
    device.run(live.turn, 30.0)
    gc.collect()
    before, start = memory_mb(), time.perf_counter()
    for _ in range(max(1, round(hours * 60))):
        device.run(live.turn, min(60.0, hours * 3600))
    gc.collect()
    stats = device.stats()
    return {
        "model": name,
        "hours": hours,
        "seconds": round(time.perf_counter() - start, 1),
        "dropouts": stats.starvations + stats.slips,
        "replaced_frames": live.engine.nonfinite_out,
        "largest": round(largest, 3),
        "memory_growth_mb": round(memory_mb() - before, 3),
    }


def main() -> None:
    """Run a trial and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=["drift", "overload", "faults", "model"])
    parser.add_argument("--hours", type=float)
    parser.add_argument("--scripts", type=int, default=1000)
    parser.add_argument("--model", default="speech", help="name, or path of a bundle")
    arguments = parser.parse_args()
    if arguments.trial == "drift":
        print(json.dumps(drift(arguments.hours or 8.0), indent=2))
    elif arguments.trial == "overload":
        print(json.dumps(overload(arguments.hours or 1.0), indent=2))
    elif arguments.trial == "model":
        print(json.dumps(model(arguments.model, arguments.hours or 1.0), indent=2))
    else:
        random = np.random.default_rng(0)
        wrong = 0
        for _ in range(arguments.scripts):
            script = random_script(random)
            told, wanted = faults(script), expected(script)
            if told | wanted != told:
                wrong += 1
                print(script, told, wanted)
        print(f"{arguments.scripts} scripts, {wrong} with counters that are not the script's")


if __name__ == "__main__":
    main()
