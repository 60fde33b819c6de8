"""Hours and faults on a made-up clock: what is heard, how late, and what was counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import soak
from rtsep.devices.fake import Away, Bad, Blocks, FakeDevice, Hold, Rate
from tests.support.random_cases import cases

NAN = float("nan")
at = st.floats(0, 4)
EVENTS = st.one_of(
    st.builds(Hold, at, st.floats(0, 1.5)),
    st.builds(Away, at, st.floats(0, 30)),
    st.builds(Bad, at, st.integers(1, 5000), st.sampled_from([NAN, np.inf, -np.inf, 1e35])),
    st.builds(Blocks, at, st.integers(1, 400)),
    st.builds(Rate, at, st.sampled_from([16_000, 44_100, 48_000, 96_000])),
)


@cases(8)
@given(st.lists(EVENTS, max_size=8))
def test_whatever_happens_is_counted_and_ends(script: list[soak.Event]) -> None:
    told = soak.faults(script)
    assert told | soak.expected(script) == told


def test_two_clocks_are_held_together() -> None:
    told = soak.drift(hours=0.1)
    assert told["dropouts"] == 0
    assert abs(told["latency_change_ms"]) < 0.5 and told["latency_range_ms"] < 1.0
    assert told["correction_ppm"] == pytest.approx([300, 300], abs=50)


def test_every_overload_is_bridged_and_counted() -> None:
    told = soak.overload(hours=0.02)
    assert told["misses"] == told["overloads"] == 7
    assert told["starved_samples"] == told["starved_by_script"]
    assert told["longest_silence_ms"] < 5.0
    assert told["largest_step"] <= told["step_allowed"]
    assert told["recovered_after_ms"] < 1000
    assert told["late_at_end"] == 0


@pytest.mark.parametrize("seconds", [0.3, 30.0])
def test_a_long_overload_drops_the_backlog(seconds: float) -> None:
    """Also one in which everything kept was overwritten; then it is as if it had not been."""
    heard: list[np.ndarray] = []

    def speak(start: int, block: np.ndarray) -> None:
        block[:] = np.arange(start, start + len(block))[:, None] % 4800 / 4800

    device = FakeDevice(
        48_000, 1, 1, 128, 512, speak, lambda _, block: heard.append(block.copy()),
        script=[Hold(1.0, seconds)],
    )  # fmt: skip
    live = soak.stream(device, latency=960).worker
    device.run(live.turn, seconds + 3.0)
    played = np.concatenate(heard)[:, 0]
    late = 960 + 512
    expected = (np.arange(len(played)) - late) % 4800 / 4800
    np.testing.assert_allclose(played[late:], expected[late:], atol=1e-3)
    assert (live.drops, device.stats().starvations) == (1, 1)
    assert live.dropped + live.processed == len(played)
    assert live.dropped == pytest.approx(seconds * 48_000, abs=256)


def test_answers_that_are_always_late_never_pile_up() -> None:
    device = FakeDevice(48_000, 1, 1, 128, 256, script=[Hold(0.1 * i, 0.099) for i in range(300)])
    live = soak.stream(device, latency=960).worker
    device.run(live.turn, 40.0)
    assert device.stats().late == 0 and live.drops > 40
    assert device.stats().longest_starvation == pytest.approx(30 * 48_000, rel=0.01)
    before = device.stats().starved_samples
    device.run(live.turn, 1.0)
    assert device.stats().starved_samples == before


def test_steering_changes_slowly_once_it_has_settled() -> None:
    for drift in (-5e-4, 5e-4):
        device = FakeDevice(
            48_000, 1, 1, 480, 480, jitter_s=0.002, own_clock_hz=48_000, drift=drift
        )
        live = soak.stream(device, 0).worker
        corrections = []
        for _ in range(90):
            device.run(live.turn, 1.0)
            corrections.append(device.correction)
        assert np.abs(np.diff(corrections[41:])).max() <= 51e-6
        assert corrections[-1] == pytest.approx(drift, abs=5e-5)
        assert device.stats().slips == 0


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000])
def test_the_clocks_resampler_is_transparent(rate: int) -> None:
    """A tone of the microphone is the same tone, 60 dB above what the interpolation adds."""
    hz, heard = 1000.0, []

    def speak(start: int, block: np.ndarray) -> None:
        times = (start + np.arange(len(block))) / rate
        block[:] = 0.5 * np.sin(2 * np.pi * hz * times)[:, None]

    device = FakeDevice(
        48_000, 1, 1, 480, 480, speak, lambda _, block: heard.append(block.copy()),
        own_clock_hz=rate,
    )  # fmt: skip
    live = soak.stream(device, 0).worker
    device.run(live.turn, 10.0)
    tone = np.concatenate(heard)[-4800:, 0]
    basis = np.exp(2j * np.pi * hz * np.arange(4800) / 48_000)
    fitted = 2 * np.real(np.mean(tone * basis.conj()) * basis)
    assert np.sqrt(np.mean(fitted**2)) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    assert np.sqrt(np.mean((tone - fitted) ** 2)) < 3e-4


def test_a_model_runs_for_long_without_a_dropout() -> None:
    told = soak.model("chandna-speech", hours=0.003)
    assert told["dropouts"] == 0 == told["replaced_frames"]
    assert 0.01 < told["largest"] < 1.0
