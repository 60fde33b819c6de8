"""Self-test: separate three seconds of the demo at real-time pace and check the result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtsep import weights
from rtsep.devices.open import DEMO, DeviceOptions
from rtsep.devices.paced import Clock
from rtsep.evaluate.metrics import si_sdr_db
from rtsep.files.readers import read_all
from rtsep.latency import StreamLatency
from rtsep.realtime.builder import Stream, StreamOptions
from rtsep.spec import Float32

SPEECH = Path(__file__).parents[1] / "demo-speech.flac"
SECONDS = 3.0
BLOCK = 128
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """Measurements of the self-test.

    Attributes
    ----------
    printed
        Computed latency.
    measured
        Latency of the output, in samples.
    misses
        Number of missed, late and dropped blocks.
    improvement_db
        SI-SDR improvement of the speech.
    real_time_factor
        Share of real time the worker was busy.
    """

    printed: StreamLatency
    measured: int
    misses: int
    improvement_db: float
    real_time_factor: float


def selftest() -> Outcome:
    """Separate the demo for three seconds as ``rtsep run`` does, on a clock in place of a device.

    All sources are played at 0 dB and sum to the mixture, so the output is the demo, delayed by the
    latency.
    """
    bundle = weights.find()
    (mixture, rate), (speech, _) = read_all(DEMO), read_all(SPEECH)
    n = round(SECONDS * rate)
    mixture, speech = mixture[:n], speech[:n]
    spec = bundle.spec
    heard = np.zeros((n + rate, 1), np.float32)
    headroom = DeviceOptions().headroom_for(rate, BLOCK)
    device = Clock(rate, 1, 1, BLOCK, headroom, mixture, kept=heard)
    options = StreamOptions(gains=dict.fromkeys(spec.sources, 0.0), reconnect=False)
    stream = Stream(bundle, device, options, tapped=True)
    live, tap = stream.worker, stream.worker.chain.tap
    assert tap is not None
    tap.reading = True
    late = live.engine.latency_samples
    wanted = n + late
    parts: list[Float32] = []
    deadline = time.monotonic() + SECONDS + _PATIENCE_S
    with stream:
        while live.running and sum(map(len, parts)) < wanted and time.monotonic() < deadline:
            parts.append(tap.read(wanted))
            time.sleep(0.02)
        time.sleep(live.latency.ms / 1000)  # until the last separated samples are played
    stats = device.stats()
    estimate = np.zeros((n, 1), np.float32)
    stem = np.concatenate(parts)[late:, spec.sources.index("speech")][:n]
    estimate[: len(stem)] = stem
    return Outcome(
        printed=live.latency,
        measured=delay(heard[:, 0], mixture[:, 0]),
        misses=stats.starvations + stats.missed + live.drops,
        improvement_db=si_sdr_db(estimate, speech) - si_sdr_db(mixture, speech),
        real_time_factor=live.real_time_factor,
    )


def delay(heard: Float32, played: Float32) -> int:
    """Return the delay of ``heard`` behind ``played`` in samples, by cross-correlation."""
    size = 1 << (len(heard) + len(played) - 1).bit_length()
    spectra = np.fft.rfft(heard, size) * np.fft.rfft(played, size).conj()
    return int(np.argmax(np.fft.irfft(spectra, size)[: len(heard)]))
