"""Around an engine of another rate: n in, n out, exactly as late as declared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.dsp.polyphase import PASSBAND, half_width
from rtsep.runtime.engine import Engine, StemOptions
from rtsep.runtime.resampled import longest_wait
from rtsep.spec import Spec
from tests.support.models import PassThrough
from tests.support.random_cases import cases

RATES = (8000, 16000, 22050, 44100, 48000, 96000)
PAIRS = [(outer, 16000) for outer in RATES if outer != 16000] + [
    (44100, 48000),
    (48000, 44100),
    (16000, 48000),
    (48000, 8000),
]


HOP = 8


def delayed(pair, latency=0, channels=1, stems=1, block=1):
    """An engine whose stem k is the mixture times k + 1, so many samples late or a few more."""
    names = tuple(f"stem{k}" for k in range(stems))
    spec = Spec(pair[1], 1, "waveform", "rectangular", HOP, HOP, 1, latency // HOP, names)
    options = StemOptions(full_band=False)
    return Engine(PassThrough(spec, channels), spec, channels, block, pair[0], options)


def noise(length, channels=1, seed=0):
    return np.random.default_rng(seed).standard_normal((length, channels)).astype(np.float32)


def run(resampled, x, sizes):
    """Outputs of blocks of ``sizes``, again and again, until ``x`` is used up."""
    parts, first = [], 0
    while first < len(x):
        for size in sizes:
            part = x[first : first + size]
            parts.append(resampled.process(part))
            assert len(parts[-1]) == len(part)
            first += size
    return np.concatenate(parts)


@cases(25)
@given(
    pair=st.sampled_from(PAIRS),
    latency=st.integers(0, 300),
    sizes=st.lists(st.sampled_from([0, 1, 2, 7, 64, 441, 480, 1000, 20000]), min_size=1),
    channels=st.integers(1, 2),
    stems=st.integers(1, 3),
)
def test_any_blocking_equals_one_shot(pair, latency, sizes, channels, stems):
    x = noise(6000, channels)
    resampled = delayed(pair, latency, channels, stems)
    once = resampled.process(x)
    assert once.shape == (6000, stems, channels)
    resampled.reset()
    np.testing.assert_allclose(run(resampled, x, [*sizes, 333]), once, atol=1e-5)
    for k in range(stems):
        np.testing.assert_allclose(once[:, k], once[:, 0] * (k + 1), atol=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("block", [1, 480, 441])
@pytest.mark.parametrize("latency", [0, 97])
def test_tones_come_back_exactly_as_late_as_declared(pair, block, latency):
    """Delay the input by the whole number declared, and nothing is left: below -75 dB."""
    resampled = delayed(pair, latency, block=block)
    length = 40 * max(block, 100)
    time = np.arange(length)[:, None] / pair[0]
    for hz in (50.0, 1000.0, 0.98 * PASSBAND * min(pair) / 2):
        x = np.sin(2 * np.pi * hz * time).astype(np.float32)
        resampled.reset()
        y = run(resampled, x, [block])[:, 0]
        late = resampled.latency_samples
        steady = slice(late + 3 * half_width(*_periods(*pair)) // _periods(*pair)[0] + 2, None)
        error = y[steady] - np.concatenate([np.zeros((late, 1), np.float32), x])[: len(y)][steady]
        assert len(error) > 500
        # Sub-sample: at hz, a delay wrong by 0.001 samples alone would leave 2 pi hz / rate / 1000.
        assert 10 * np.log10(2 * np.mean(error**2)) < -75


def _periods(outer_rate, model_rate):
    common = int(np.gcd(outer_rate, model_rate))
    return model_rate // common, outer_rate // common


@pytest.mark.parametrize("pair", PAIRS)
def test_a_click_peaks_at_the_declared_latency(pair):
    resampled = delayed(pair, 50)
    for position in (0, 1, 100, 333):
        x = np.zeros((resampled.latency_samples + 1000, 1), np.float32)
        x[position] = 1.0
        resampled.reset()
        y = resampled.process(x)[:, 0, 0]
        assert abs(y).argmax() == position + resampled.latency_samples


@cases(25)
@given(pair=st.sampled_from(PAIRS), latency=st.integers(0, 2000), block=st.integers(1, 2000))
def test_the_latency_is_by_its_terms_and_minimal(pair, latency, block):
    outer_rate, model_rate = pair
    resampled = delayed(pair, latency, block=block)
    outer, model = _periods(*pair)
    assert isinstance(resampled.latency_samples, int)
    own = resampled.latency.total * outer_rate / model_rate
    assert resampled.latency_samples == pytest.approx(own + resampled.resampling)
    filters = 2 * half_width(outer, model) / outer
    # Both filters, give or take less than one sample of either rate.
    assert abs(resampled.resampling - filters) < 1 + outer_rate / model_rate
    run(resampled, noise(20 * block), [block, 3 * block])  # `pull` raises if it ran dry


@pytest.mark.parametrize(
    ("pair", "expected_ms"), [((48000, 16000), 1.92), ((44100, 16000), 1.88), ((48000, 8000), 3.83)]
)
def test_both_directions_take_a_few_milliseconds(pair, expected_ms):
    resampled = delayed(pair)
    assert resampled.resampling / pair[0] * 1000 == pytest.approx(expected_ms, abs=0.05)


def test_one_sample_sooner_would_run_dry(monkeypatch):
    for pair in PAIRS:
        for block in (1, 480):
            good = delayed(pair, 13, block=block).latency_samples
            monkeypatch.setattr(
                "rtsep.runtime.resampled._smallest_latency", lambda *_, d=good: d - 1
            )
            early = delayed(pair, 13, block=block)
            monkeypatch.undo()
            with pytest.raises(ValueError, match="more rows are requested than are ready"):
                run(early, noise(50_000), [block] if block > 1 else [1] * 499 + [2])


@pytest.mark.parametrize("pair", [*PAIRS, (16000, 16000)])
@pytest.mark.parametrize("block", [1, 96, 128, 192, 384, 441, 480])
@pytest.mark.parametrize("hop", [8, 48, 128])
def test_steps_wait_no_longer_than_declared(pair, block, hop):
    """A tone comes back, after exactly the declared latency, from the first sample on."""
    spec = Spec(pair[1], 1, "waveform", "rectangular", hop, hop, 1, 0, ("a",))
    engine = Engine(PassThrough(spec, 1), spec, 1, block, pair[0])
    waiting = longest_wait(*pair, block, hop)
    assert engine.latency.reblocking == waiting < hop
    x = np.sin(np.arange(40 * block + 4000 // block * block)[:, None] * (2 * np.pi * 500 / pair[0]))
    x = x.astype(np.float32) * np.minimum(1, np.arange(len(x))[:, None] / 2000)
    y = run(engine, x.astype(np.float32), [block])[:, 0]
    late = engine.latency_samples
    np.testing.assert_allclose(y[late:], x[: len(x) - late], atol=3e-4)
    assert not y[: late // 2].any() or np.abs(y[: late // 2]).max() < 1e-3


def test_regular_blocks_stay_regular():
    assert longest_wait(48000, 16000, 480, 8) == 0
    assert longest_wait(44100, 16000, 441, 8) == 0
    assert longest_wait(48000, 16000, 128, 128) == 85
    assert longest_wait(48000, 16000, 1, 8) == 7
    assert longest_wait(47999, 16001, 7, 1 << 12) == (1 << 12) - 1  # not looked for
    resampled = delayed((48000, 16000), 100, block=480)
    assert resampled.latency.reblocking == 0
    for blocks in (1, 1, 2, 1, 10):
        before = resampled.calls
        resampled.process(noise(480 * blocks))
        assert resampled.calls - before == 160 // HOP * blocks


@pytest.mark.parametrize("pair", [p for p in PAIRS if p[0] > (2 - PASSBAND) * p[1]])
def test_what_lies_beyond_the_transition_is_gone(pair):
    """Alias or image: 80 dB below, measured over the whole output for tones above the band."""
    outer_rate, model_rate = pair
    resampled = delayed(pair)
    time = np.arange(8000)[:, None] / outer_rate
    edge = (2 - PASSBAND) * model_rate / 2
    for hz in np.linspace(edge, outer_rate / 2, 7)[:-1]:
        resampled.reset()
        y = resampled.process(np.sin(2 * np.pi * hz * time).astype(np.float32))
        assert 20 * np.log10(np.abs(y[4000:]).max() + 1e-9) < -75


@pytest.mark.parametrize("pair", PAIRS)
def test_a_constant_stays_constant(pair):
    resampled = delayed(pair, 20)
    y = resampled.process(np.ones((4000, 1), np.float32))
    np.testing.assert_allclose(y[3000:], 1.0, atol=1e-5)


@pytest.mark.parametrize("block", [1, 480])
def test_flush_returns_the_tail_and_resets(block):
    resampled = delayed((48000, 16000), 77, block=block)
    x = noise(4800)
    late = resampled.latency_samples
    longer = resampled.process(np.concatenate([x, np.zeros((4800, 1), np.float32)]))
    resampled.reset()
    for _ in range(2):
        y = run(resampled, x, [480])
        tail = np.full((late, 1, 1), np.nan, np.float32)
        assert resampled.flush(tail) is tail
        np.testing.assert_allclose(np.concatenate([y, tail]), longer[: 4800 + late], atol=1e-5)
    assert resampled.flush().shape == (late, 1, 1)


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate != 16000])
@pytest.mark.parametrize("block", [1, 441, 480])
def test_around_the_real_engine(rate, block):
    spec = Spec(16000, 1, "stft", "hann", 256, 64, 2, 3, ("copy",))
    engine = Engine(PassThrough(spec, 2), spec, 2, block, rate)
    hz = 1000 * np.array([[1, 2]])
    x = np.sin(2 * np.pi * hz * np.arange(40 * 480)[:, None] / rate).astype(np.float32)
    x = x[: len(x) // block * block]
    y = np.concatenate([run(engine, x, [7 * block, block]), engine.flush()])[:, 0]
    late = engine.latency_samples
    assert len(y) == len(x) + late
    steady = slice(late, len(x) - late)
    np.testing.assert_allclose(y[late:][steady], x[steady], atol=3e-4)
    own = engine.latency.total * rate / 16000
    assert late == pytest.approx(own + engine.resampling)


def test_reset_equals_fresh():
    x = noise(5000)
    used, fresh = delayed((44100, 16000), 9), delayed((44100, 16000), 9)
    used.process(noise(1234, seed=1))
    used.reset()
    np.testing.assert_array_equal(used.process(x), fresh.process(x))


def test_a_given_out_is_filled():
    resampled = delayed((48000, 16000), 0, 2, 2)
    out = np.full((10, 2, 2), np.nan, np.float32)
    assert resampled.process(noise(10, 2), out) is out
    assert np.isfinite(out).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_sound_is_one_silent_sample(bad):
    broken, silent = delayed((44100, 16000)), delayed((44100, 16000))
    x = noise(3000)
    x[1000] = bad
    y = broken.process(x)
    x[1000] = 0.0
    np.testing.assert_array_equal(y, silent.process(x))
    assert broken.nonfinite_in == 1 and silent.nonfinite_in == 0
    assert broken.nonfinite_out == 0


def test_what_does_not_fit_is_refused():
    resampled = delayed((48000, 16000), 0, 2, block=480)
    assert resampled.process(noise(0, 2)).shape == (0, 1, 2)
    with pytest.raises(ValueError, match="481 samples are not a multiple of the declared block"):
        resampled.process(noise(481, 2))
    for block in (noise(480, 1), noise(480, 2)[:, 0], noise(480, 2).astype(float)):
        with pytest.raises(ValueError, match="block must be C-contiguous float32 of shape"):
            resampled.process(block)
    for out in (np.zeros((480, 1, 1), "f4"), np.zeros((480, 1, 2)), np.zeros((2, 1, 480), "f4").T):
        with pytest.raises(ValueError, match="out must be C-contiguous float32 of shape"):
            resampled.process(noise(480, 2), out)


def test_figures_that_cannot_be_are_refused():
    for outer_rate, block in ((0, 1), (-1, 1), (48000.0, 1), (48000, 2.0)):
        with pytest.raises(ValueError, match="must be whole numbers above 0"):
            delayed((outer_rate, 16000), block=block)
    with pytest.raises(ValueError, match="channels and block must be 1 or more"):
        delayed((48000, 16000), block=0)


def test_nothing_is_resampled_where_the_rates_agree():
    engine = delayed((16000, 16000), 80, block=100)
    assert (engine.resampling, engine.latency_samples) == (0.0, engine.latency.total)
    x = noise(1000)
    late = engine.latency_samples
    np.testing.assert_array_equal(engine.process(x)[late:, 0], x[:-late])
