"""One direction of the resampler: the compiled sum, and what it refuses."""

import numpy as np
import pytest

from rtsep.dsp.polyphase import Polyphase, filter_table, interpolate


@pytest.mark.parametrize(("outer", "model"), [(1, 3), (160, 441), (441, 160), (2, 1), (147, 160)])
def test_the_kernel_is_the_sum_it_claims_to_be(outer, model):
    table = filter_table(outer, model)
    history = np.random.default_rng(0).standard_normal((table.shape[1] + 40, 2)).astype("f4")
    out = np.zeros((5, 2), np.float32)
    position = (table.shape[1] - 1) * outer + outer // 2
    count = min(5, ((len(history) * outer - position) - 1) // model + 1)
    interpolate(history, position, table, outer, model, out[:count])
    plain = np.zeros_like(out)
    interpolate.py_func(history, position, table, outer, model, plain[:count])
    np.testing.assert_allclose(out, plain, atol=1e-5)


def test_pulling_more_than_is_ready_is_refused():
    phase = Polyphase(1, 3, 0, 0, 1, 100)
    assert phase.ready == 0
    with pytest.raises(ValueError, match="more rows are requested than are ready"):
        phase.pull(np.zeros((1, 1), np.float32))


def test_rates_without_a_common_divisor_are_refused():
    with pytest.raises(ValueError, match="taps, more than"):
        filter_table(1_000_003, 999_983)


def test_pushing_more_than_fits_is_refused():
    phase = Polyphase(1, 3, 0, 0, 1, 100)
    with pytest.raises(ValueError, match="9999 rows exceed the room"):
        phase.push(np.zeros((9999, 1), np.float32))
