"""A model takes another's place while the stream runs: without a step, and in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsep.files.readers import read_all
from rtsep.realtime.chain import ProcessingChain
from rtsep.realtime.crossfade import CROSS_S, LISTEN_S
from rtsep.realtime.recorder import Recorder
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.runtime.ort_step import OrtStep
from rtsep.spec import Spec, Step
from tests.support import models
from tests.support.audio import delayed, sines, steps
from tests.support.audio import uniform as noise
from tests.support.stream import BUNDLE, OTHER, SPEC, Hand, stream

RATE, BLOCK = 16000, 64


def chain(
    live: StreamWorker, spec: Spec = OTHER, make: Callable[[Bundle], Step] = make_step
) -> ProcessingChain:
    """Of another model, of which only the second source is heard."""
    step = make(models.bundle(spec))
    made = live.make_chain(Engine(step, spec, 1, BLOCK))
    made.mixer.gains[:] = 0, 1
    made.warm_up(BLOCK)
    return made


def run(
    live: StreamWorker, n: int, *, until: int = 0, switch: ProcessingChain | None = None
) -> Any:
    """Let so many samples pass; hand the chain over before the block at ``until``."""
    played = np.full((n, 1), np.nan, np.float32)
    nothing = np.zeros((0, 1), np.float32)
    for start in range(0, n, BLOCK):
        if start == until and switch is not None:
            live.switch(switch)
        live.device.tick(nothing, played[start : start + BLOCK], 0.0)  # type: ignore[attr-defined]
        live.turn()
    return played


@pytest.mark.parametrize("ways", [(make_step, make_step), (make_step, OrtStep), (OrtStep, OrtStep)])
@pytest.mark.parametrize("sound", [noise, sines])
def test_the_models_cross_fade(sound: Any, ways: tuple[Any, Any]) -> None:
    n, until = 100 * BLOCK * 2, 40 * BLOCK
    x = sound(n, 1)
    device = Hand(RATE, 1, 1, BLOCK, BLOCK, x)
    live = stream(device, (1, 0), step=ways[0](BUNDLE))
    before = live.chain
    after = chain(live, make=ways[1])
    heard = run(live, n, until=until, switch=after)
    assert live.chain is after and not live.switching and live.chains == (after,)
    a = 0.75 * delayed(x, before.engine.latency_samples + BLOCK)
    b = 0.25 * delayed(x, after.engine.latency_samples + BLOCK)
    begins = until + BLOCK + after.engine.latency_samples + round(LISTEN_S * RATE)
    fade = round(CROSS_S * RATE)
    np.testing.assert_allclose(heard[:begins], a[:begins], atol=1e-5)
    np.testing.assert_allclose(heard[begins + fade :], b[begins + fade :], atol=1e-5)
    apart = np.abs(a - b).astype(np.float64)
    allowed = np.maximum(steps(a), steps(b)) + np.pi / (2 * fade) * np.maximum(
        apart[1:], apart[:-1]
    )
    assert np.all(steps(heard) <= allowed + 2e-5)
    stats = device.stats()
    assert (stats.starvations, stats.late, live.drops, live.processed) == (0, 0, 0, n)


def test_the_bypass_of_each_is_its_own_aligned_mixture() -> None:
    n, until = 200 * BLOCK, 40 * BLOCK
    x = noise(n, 1)
    live = stream(Hand(RATE, 1, 1, BLOCK, BLOCK, x), (1, 0))
    after = chain(live)
    for each in (live.chain, after):
        each.mixer.bypass = True
        each.mixer.reset()
    early, late = (each.engine.latency_samples + BLOCK for each in (live.chain, after))
    heard = run(live, n, until=until, switch=after)
    np.testing.assert_array_equal(heard[:until], delayed(x, early)[:until])
    end = n - 2000
    np.testing.assert_array_equal(heard[end:], delayed(x, late)[end:])


def test_what_is_late_is_replaced_by_the_mixture_as_late_as_the_new_model() -> None:
    n = 200 * BLOCK
    x = noise(n, 1)
    device = Hand(RATE, 1, 1, BLOCK, BLOCK, x)
    live = stream(device, (1, 0))
    run(live, 150 * BLOCK, switch=chain(live))
    played = np.zeros((50 * BLOCK, 1), np.float32)
    for start in range(0, len(played), BLOCK):  # the worker is not there
        device.tick(np.zeros((0, 1), np.float32), played[start : start + BLOCK], 0.0)
    dry = delayed(x, live.engine.latency_samples + BLOCK)
    np.testing.assert_array_equal(played[1000:], dry[150 * BLOCK + 1000 :])


def test_recordings_before_and_after(tmp_path: Path) -> None:
    n, until = 200 * BLOCK, 40 * BLOCK
    x = noise(n, 1)
    live = stream(Hand(RATE, 1, 1, BLOCK, BLOCK, x), (1, 0))
    former, after = live.chain, chain(live)
    late = former.engine.latency_samples, after.engine.latency_samples
    live.recorder = Recorder(tmp_path / "a", SPEC.sources, RATE, 1, late[0])
    after.recorder = Recorder(tmp_path / "b", OTHER.sources, RATE, 1, late[1])
    run(live, n, until=until, switch=after)
    recorder = former.recorder
    assert recorder is not None
    recorder.close(former.engine.flush())
    live.stop()
    one, two = (
        {path.stem: read_all(path)[0] for path in (tmp_path / folder).glob("*.wav")}
        for folder in "ab"
    )
    np.testing.assert_array_equal(np.concatenate([one["mixture"], two["mixture"]]), x)
    for take, names in ((one, SPEC.sources), (two, OTHER.sources)):
        assert {len(sound) for sound in take.values()} == {len(take["mixture"])}
        assert set(take) == {"mixture", *names}
    np.testing.assert_allclose(one["speech"], 0.75 * one["mixture"], atol=1e-5)
    np.testing.assert_allclose(two["bass"], 0.25 * two["mixture"], atol=1e-5)


def test_a_model_that_is_too_late_for_the_device_is_refused() -> None:
    device = Hand(RATE, 1, 1, BLOCK, BLOCK)
    live = stream(device, (1, 0))
    slow = Spec(16000, 1, "stft", "hann", 256, 64, 1, device.input.capacity // 64, ("a", "b"))
    step = make_step(models.bundle(slow))
    made = live.make_chain(Engine(step, slow, 1, BLOCK))
    with pytest.raises(ValueError, match="not kept"):
        live.switch(made)
    assert not live.switching


def test_sources_of_one_name_keep_their_controls_and_the_others_wait_muted() -> None:
    live = stream(Hand(RATE, 1, 1, BLOCK, BLOCK), (0.5, 0))
    former = live.chain
    former.mixer.muted[1] = former.mixer.bypass = True

    def after(*sources: str) -> ProcessingChain:
        made = chain(live, Spec(16000, 1, "stft", "hann", 64, 16, 1, 1, sources))
        made.go_on_from(former)
        assert made.mixer.settled and made.mixer.bypass
        return made

    swapped = after("noise", "speech").mixer
    np.testing.assert_array_equal(swapped.gains, [0, 0.5])
    np.testing.assert_array_equal(swapped.muted, [True, False])
    np.testing.assert_array_equal(after("music", "speech").mixer.heard, [False, True])
    strange = after("vocals", "drums").mixer
    np.testing.assert_array_equal(strange.heard, [True, False])
    assert strange.gains[0] == 1.0
    # Where all was silent, it stays silent.
    former.mixer.muted[0] = True
    assert not after("vocals", "drums").mixer.heard.any()
    # A solo that has nobody to be for any more mutes nobody.
    former.mixer.muted[:], former.mixer.soloed[:], former.mixer.gains[:] = False, True, (1, 0)
    np.testing.assert_array_equal(after("noise", "music").mixer.heard, [True, False])
