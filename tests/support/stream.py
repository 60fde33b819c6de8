"""A stream of blocks to test with: a device that the test drives, a worker, small models."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.devices.callback_stream import CallbackStream
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec, Step
from tests.support import models

SPEC = Spec(16000, 1, "stft", "hann", 64, 16, 1, 1, ("speech", "noise"))
OTHER = Spec(16000, 1, "stft", "hann", 256, 64, 1, 1, ("drums", "bass"))
BUNDLE = models.bundle(SPEC)


class Hand(CallbackStream):
    """A device without a clock: the test ticks."""

    name = "by hand"
    active = True

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def stream(
    device: Any,
    gains: tuple[float, ...],
    recorder: Recorder | None = None,
    step: Step | None = None,
) -> StreamWorker:
    channels = device.input.width
    if step is None:
        step = make_step(BUNDLE, SPEC.streams(channels))
    engine = Engine(step, SPEC, channels, device.block, device.sample_rate)
    live = StreamWorker(device, engine, np.array(gains, np.float32))
    live.recorder = recorder
    return live
