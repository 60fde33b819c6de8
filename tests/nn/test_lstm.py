"""LSTM layers in chunks and under autocast; tests/models/test_zoo.py compares exported ones."""

import torch

from rtsep.nn.checks import check_chunking, check_state
from rtsep.nn.lstm import LSTM


def layers() -> LSTM:
    torch.manual_seed(0)
    return LSTM(5, 8, layers=2).eval()


def test_chunks_give_the_same() -> None:
    x = torch.randn(2, 50, 5)
    check_state(layers())
    check_chunking(layers(), x, [1, 7, 2])


def test_states_stay_precise_under_autocast() -> None:
    made, x = layers(), torch.randn(1, 20, 5)
    plain, _ = made(x, made.initial_state(1))
    with torch.autocast("cpu", torch.bfloat16):
        y, state = made(x.bfloat16(), made.initial_state(1))
    assert {leaf.dtype for leaf in state.values()} == {torch.float32}
    torch.testing.assert_close(y, plain, atol=0.02, rtol=0)
