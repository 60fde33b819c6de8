"""A stream of blocks to test with: a device that the test drives, a worker, small models."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.devices.callback_stream import CallbackStream
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import ModelStep
from rtsep.runtime.resampled import around
from rtsep.runtime.timing import TimedStep
from rtsep.spec import Spec
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


def stream(device: Any, gains: tuple[float, ...], recorder: Recorder | None = None) -> StreamWorker:
    channels = device.input.width
    step = TimedStep(ModelStep(BUNDLE, SPEC.streams(channels)))
    engine = around(
        lambda block: Engine(step, SPEC, channels, block),
        device.sample_rate,
        SPEC.sample_rate,
        device.block,
    )
    live = StreamWorker(device, engine, step, np.array(gains, np.float32))
    live.recorder = recorder
    return live
