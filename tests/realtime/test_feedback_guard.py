"""The feedback guard, on a room made up around a stream."""

from __future__ import annotations

import numpy as np
import pytest

from bench import soak
from rtsep.devices.fake import FakeDevice
from rtsep.realtime.feedback_guard import PIECE_S, FeedbackGuard

RATE, BLOCK = 16_000, 128


def warnings(loop_gain: float, growth_db: float = 0.0, seconds: float = 6.0) -> int:
    """Count the warnings in a room where the microphone hears the loudspeaker 30 ms later."""
    random, delay = np.random.default_rng(0), round(0.03 * RATE)
    room = np.zeros(round((seconds + 1) * RATE) + delay)

    def speak(start: int, block: np.ndarray) -> None:
        times = (start + np.arange(len(block))) / RATE
        level = 1e-3 * 10 ** (growth_db * times / 20)
        own = level * random.standard_normal(len(block))
        block[:, 0] = own + room[start : start + len(block)]

    def hear(start: int, block: np.ndarray) -> None:
        room[start + delay : start + delay + len(block)] = np.clip(loop_gain * block[:, 0], -1, 1)

    device = FakeDevice(RATE, 1, 1, BLOCK, BLOCK, speak, hear)
    live = soak.stream(device, 320).worker
    guard = FeedbackGuard()
    count = 0
    for _ in range(round(seconds / PIECE_S)):
        device.run(live.turn, PIECE_S)
        count += guard.look(device)
    return count


@pytest.mark.parametrize("loop_gain", [1.1, 1.3])
def test_a_rising_loop_is_noticed(loop_gain: float) -> None:
    assert warnings(loop_gain) >= 1


@pytest.mark.parametrize(("loop_gain", "growth_db"), [(0.0, 0.0), (0.0, 6.0), (0.3, 0.0)])
def test_headphones_and_quiet_rooms_are_not(loop_gain: float, growth_db: float) -> None:
    assert warnings(loop_gain, growth_db) == 0
