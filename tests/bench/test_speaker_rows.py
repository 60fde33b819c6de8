"""What `bench.speaker_rows` counts: improvements in an order, and changes of place."""

from __future__ import annotations

import numpy as np

from bench.speaker_rows import gains_db, order, sex, swaps
from bench.speech_sets import RATE_HZ
from rtsep.spec import Float32


def voices(seconds: int = 8) -> Float32:
    rng = np.random.default_rng(0)
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    syllables = np.abs(np.sin(2 * np.pi * np.array([[1.5], [1.7]]) * t))
    return np.asarray(0.1 * syllables * rng.standard_normal((2, len(t))), np.float32)


def test_changes_of_place_are_counted() -> None:
    said = voices()
    half = said.shape[1] // 2
    assert swaps(said, said) == swaps(said[::-1], said) == 0
    turned = said.copy()
    turned[:, half:] = said[::-1, half:]
    assert swaps(turned, said) == 1
    turned[:, -half // 2 :] = said[:, -half // 2 :]
    assert swaps(turned, said) == 2
    mixture = said.sum(axis=0)
    assert swaps(np.stack([mixture, mixture]), said) == 0, "no order is better"
    quiet = said.copy()
    quiet[0, half:] *= 1e-3
    assert swaps(np.concatenate([said[:, :half], said[::-1, half:]], axis=1), quiet) == 0


def test_the_better_order_is_found() -> None:
    said = voices(2)
    near = 0.9 * said + 0.1 * said[::-1]
    assert order(near, said) == 0 and order(near[::-1], said) == 1
    assert np.all(gains_db(near, said, said.sum(axis=0)) > 10)
    assert [sex(name) for name in ("so12f", "so7m", "kathleen")] == ["f", "m", "f"]
