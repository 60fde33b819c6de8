"""The filter of 16-bit samples that all adapters share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import SoundError
from rtsep.integrations.source_filter import SourceFilter, from_int16, to_int16
from tests.support.pcm import RATES, expected, mixture, samples


@pytest.mark.parametrize("rate", RATES)
def test_blocks_of_any_size_equal_rtsep_separate(rate: int, model: Path) -> None:
    kept = SourceFilter(model, "noise", sample_rate=rate, channels=2)
    whole, found = mixture(rate, 2).tobytes(), []
    sizes = np.random.default_rng(rate).integers(1, rate // 20, 1000)
    for start, end in zip(np.cumsum(sizes) - sizes, np.cumsum(sizes), strict=True):
        block = whole[4 * start : 4 * end]
        found.append(kept.process(block))
        assert len(found[-1]) == len(block)
    late = kept.latency.samples
    joined = samples(b"".join([*found, kept.flush()]), 2)
    assert rate != 16000 or not joined[:late].any()  # resampling rings before the first sample
    np.testing.assert_array_equal(joined[late:], expected(rate, model, "noise", 2))


def test_samples_are_rounded_and_limited() -> None:
    whole = np.arange(-32768, 32768, dtype=np.int16)
    assert to_int16(from_int16(whole.tobytes(), 2)) == whole.tobytes()
    ends = np.array([[2.0, -2.0, 0.4 / 32768, 0.6 / 32768]], np.float32)
    assert samples(to_int16(ends)).ravel().tolist() == [32767, -32768, 0, 1]


def test_what_is_refused(model: Path) -> None:
    with pytest.raises(SoundError, match="no source 'voice'; there are: speech, noise"):
        SourceFilter(model, "voice", sample_rate=16000)
    with pytest.raises(SoundError, match="3 bytes are not 16-bit samples of 1 channels"):
        SourceFilter(model, sample_rate=16000).process(b"abc")
