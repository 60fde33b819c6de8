"""Auto-encoders in torch, and the papers' five notes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.learned import notes
from rtsep.learned.autoencoders import AutoEncoder, divergence, learn
from rtsep.learned.learn import Plan
from rtsep.learned.learn import learn as by_plan

SIZES = {
    "nae": {},
    "nae-deep": {"hidden": 9},
    "ccae": {"taps": 4},
    "rcae": {"taps": 4, "recurrent": True},
}


@pytest.mark.parametrize("model", SIZES)
def test_the_decoder_is_that_of_the_network(model: str) -> None:
    """What is kept explains what the network did, in numpy, from the activations it returns."""
    rng = np.random.default_rng(0)
    x = (rng.gamma(0.5, 1.0, (120, 3)) @ rng.gamma(0.3, 1.0, (3, 33))).astype(np.float32)
    made, h = learn(x, 6, updates=150, **SIZES[model])  # type: ignore[arg-type]
    taps = made.taps
    y = made.explain(np.pad(h, ((taps - 1, 0), (0, 0))))[0]
    error = float(divergence(torch.from_numpy(x), torch.from_numpy(y)))
    before = AutoEncoder(torch.from_numpy(x), 6, **SIZES[model])  # type: ignore[arg-type]
    with torch.no_grad():
        first = before.decode(before.encode(torch.from_numpy(x)))
    start = float(divergence(torch.from_numpy(x), first))
    assert error < 0.25 * start and error < 0.1
    assert np.isclose(made.usual.sum(), 1.0, rtol=1e-4)
    assert 0.5 < h.sum() / x.sum() < 2.0  # activations are in units of the sound


def test_sparsity_is_for_activations() -> None:
    x = np.random.default_rng(0).gamma(0.5, 1.0, (100, 33)).astype(np.float32)
    spread = []
    for sparsity in (0.0, 0.3):
        _, h = by_plan(x, Plan("nae", 8, updates=150, sparsity=sparsity))
        share = h / (h.sum(axis=1, keepdims=True) + 1e-9)
        spread.append(float(np.mean(np.exp(-np.sum(share * np.log(share + 1e-9), axis=1)))))
    assert spread[1] < spread[0]


def test_smallness_is_for_weights() -> None:
    x = np.random.default_rng(0).gamma(0.5, 1.0, (100, 33)).astype(np.float32)
    sizes = []
    for smallness in (0.0, 0.1):
        made, h = by_plan(x, Plan("nae", 8, updates=100, sparsity=0.0, smallness=smallness))
        unit = x.sum() / h.sum()  # the penalty is of the weights before they get their unit
        sizes.append(float(np.abs(made.matrices[0]).mean() * unit))
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("index", range(2))
def test_five_notes(index: int) -> None:
    """Rank 4: a basis per note; that of the third note sounds again in the fifth, alone."""
    plan = notes.PLANS[index]
    _, h = by_plan(notes.spectra(notes.five_notes()), plan)
    level = notes.played(h)
    loudest = np.argmax(level, axis=1)
    assert len(set(loudest[:4])) == 4 and loudest[4] == loudest[2]
    assert np.max(np.sort(level, axis=1)[:, :-1]) < 0.5
