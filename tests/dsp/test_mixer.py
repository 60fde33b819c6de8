"""What is heard follows the controls, without a step that the sound itself does not make."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.dsp import mixer
from rtsep.dsp.mixer import FADE_S, Mixer
from tests.support.audio import RATE, Array, delayed, sines, steps
from tests.support.audio import uniform as noise

FADE = round(FADE_S * RATE)
Change = Callable[[Mixer], object]


def mixed(
    mixer: Mixer, mixture: Array, stems: Array, block: int, changes: dict[int, Change]
) -> Array:
    """Mix in blocks; each change is made before the block of its number."""
    out = np.full((len(mixture), mixer.out_channels), np.nan, np.float32)
    for number, start in enumerate(range(0, len(mixture), block)):
        changes.get(number, lambda _: None)(mixer)
        part = slice(start, start + block)
        mixer.process(mixture[part], stems[part], out[part])
    return out


@given(
    st.integers(0, 99),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 40),
    st.integers(1, 30),
)
def test_settled_it_is_the_sum_or_the_aligned_mixture_bit_for_bit(
    n: int, sources: int, channels: int, played: int, latency: int, block: int
) -> None:
    mixture, stems = noise(n, channels), noise(n, sources, channels, seed=1)
    present = np.minimum(np.arange(played), channels - 1)
    gains = noise(sources, seed=2)
    wanted = np.zeros((n, played), np.float32)
    for source in range(sources):
        wanted += gains[source] * stems[:, source, present]
    mixer = Mixer(sources, channels, played, RATE, latency)
    mixer.gains[:] = gains
    mixer.reset()
    np.testing.assert_array_equal(mixed(mixer, mixture, stems, block, {}), wanted)
    peaks = np.abs(np.concatenate([mixture[:, None], stems], axis=1)).max(axis=(0, 2), initial=0)
    np.testing.assert_array_equal(mixer.peaks(), peaks)
    assert not mixer.peaks().any()
    mixer.bypass = True
    mixer.reset()
    dry = mixed(mixer, mixture, stems, block, {})
    np.testing.assert_array_equal(dry, delayed(mixture, latency)[:, present])


def test_the_kernel_is_its_python(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, stems = noise(900, 2), noise(900, 3, 2, seed=1)
    changes: dict[int, Change] = {
        2: lambda mixer: mixer.gains.__setitem__(1, 3.0),
        20: lambda mixer: setattr(mixer, "bypass", True),
        24: lambda mixer: mixer.soloed.__setitem__(2, True),
        40: lambda mixer: setattr(mixer, "bypass", False),
        60: lambda mixer: mixer.gains.__setitem__(2, np.nan),
    }
    compiled = mixed(Mixer(3, 2, 3, 4000, 17), mixture, stems, 10, changes)
    monkeypatch.setattr(mixer, "mix", mixer.mix.py_func)
    interpreted = mixed(Mixer(3, 2, 3, 4000, 17), mixture, stems, 10, changes)
    np.testing.assert_allclose(compiled, interpreted, atol=1e-6)
    assert not compiled[-100:].any()  # the only source heard has no gain that could be


def gain(mixer: Mixer) -> None:
    mixer.gains[0] = 0.25


def mute(mixer: Mixer) -> None:
    mixer.muted[0] = True


def solo(mixer: Mixer) -> None:
    mixer.soloed[1] = True


def bypass(mixer: Mixer) -> None:
    mixer.bypass = True


@pytest.mark.parametrize("sound", [noise, sines])
@pytest.mark.parametrize("change", [gain, mute, solo, bypass])
@pytest.mark.parametrize("block", [16, 128, 1000])
def test_a_change_adds_no_step_but_that_of_its_fade(
    sound: Callable[..., Array], change: Change, block: int
) -> None:
    """Sample by sample no more than that of what is heard before or after, and the fade's slope."""
    n, latency = 4000, 100
    mixture, stems = sound(n, 1), sound(n, 2, 1)
    before, after = Mixer(2, 1, 1, RATE, latency), Mixer(2, 1, 1, RATE, latency)
    change(after)
    after.reset()
    number = 2000 // block
    heard = mixed(Mixer(2, 1, 1, RATE, latency), mixture, stems, block, {number: change})
    a, b = (mixed(mixer, mixture, stems, block, {}) for mixer in (before, after))
    apart = np.abs(a - b).astype(np.float64)
    slope = np.pi / (2 * FADE)
    allowed = np.maximum(steps(a), steps(b)) + slope * np.maximum(apart[1:], apart[:-1]) + 1e-6
    assert np.all(steps(heard) <= allowed)
    start = number * block
    np.testing.assert_array_equal(heard[:start], a[:start])
    np.testing.assert_array_equal(heard[start + FADE - 1 :], b[start + FADE - 1 :])
    jumps = np.abs(b[1:].astype(np.float64) - a[:-1])
    assert not np.all(jumps <= allowed), "a jump would always pass as well"


@given(
    st.integers(1, 200),
    st.lists(
        st.tuples(
            st.sampled_from(["gain", "mute", "solo", "bypass"]),
            st.integers(0, 1),
            st.floats(0, 2, width=32),
        ),
        max_size=60,
    ),
)
def test_no_sequence_of_changes_makes_a_step(
    block: int, script: list[tuple[str, int, float]]
) -> None:
    """The level of constant stems is the envelope: up to 2 x 2 from the stems, -1 is the dry."""
    n = block * (len(script) + 2) + 3 * FADE
    mixture, stems = np.full((n, 1), -1, np.float32), np.ones((n, 2, 1), np.float32)

    def change(kind: str, source: int, value: float) -> Change:
        def make(mixer: Mixer) -> None:
            if kind == "gain":
                mixer.gains[source] = value
            elif kind == "bypass":
                mixer.bypass = not mixer.bypass
            else:
                flags = mixer.muted if kind == "mute" else mixer.soloed
                flags[source] = not flags[source]

        return make

    mixer = Mixer(2, 1, 1, RATE, 0)
    changes = {1 + i: change(*event) for i, event in enumerate(script)}
    envelope = mixed(mixer, mixture, stems, block, changes)
    # Stems and dry may move at once: (1 - b)' w and (1 - b) w' with w from 0 to 4.
    assert steps(envelope).max() <= (5 + 4) * np.pi / (2 * FADE) + 1e-6
    assert mixer.settled
    alone = mixer.soloed if mixer.soloed.any() else np.ones(2, bool)
    wet = float(mixer.gains[alone & ~mixer.muted].sum())
    assert envelope[-1, 0] == pytest.approx(-1.0 if mixer.bypass else wet)


def test_no_value_that_is_no_sound_passes_the_bypass() -> None:
    mixture, stems = noise(64, 1), np.zeros((64, 1, 1), np.float32)
    mixture[10:13, 0] = np.nan, np.inf, 1e35
    mixer = Mixer(1, 1, 1, RATE, 4)
    mixer.bypass = True
    mixer.reset()
    heard = mixed(mixer, mixture, stems, 16, {})
    mixture[10:13] = 0
    np.testing.assert_array_equal(heard, delayed(mixture, 4))
    assert mixer.peaks()[0] == np.abs(mixture).max()


def test_mixing_does_not_allocate() -> None:
    mixer = Mixer(2, 1, 2, RATE, 64)
    mixture, stems, out = noise(128, 1), noise(128, 2, 1), np.zeros((128, 2), np.float32)

    def blocks() -> None:
        for number in range(500):
            mixer.muted[0] = number % 3 == 0
            mixer.process(mixture, stems, out)

    blocks()
    tracemalloc.start()
    try:
        grown = []
        for _ in range(4):
            before = tracemalloc.get_traced_memory()[0]
            blocks()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
        assert min(grown) <= 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "figures", [(0, 1, 1, 1, 0), (1, 0, 1, 1, 0), (1, 1, 1, 0, 0), (1,) * 4 + (-1,)]
)
def test_figures_that_cannot_be(figures: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        Mixer(*figures)


def test_arrays_that_do_not_fit() -> None:
    mixer = Mixer(2, 1, 2, RATE, 0)
    good = noise(8, 1), noise(8, 2, 1), np.zeros((8, 2), np.float32)
    mixer.process(*good)
    for place, wrong in enumerate((noise(8, 2), noise(8, 3, 1), np.zeros((8, 1), np.float32))):
        arrays = [*good]
        arrays[place] = wrong
        with pytest.raises(ValueError, match="must be C-contiguous float32"):
            mixer.process(*arrays)
