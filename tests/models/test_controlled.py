"""One network, either source: chosen by its control, in torch and live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import rtsep
from rtsep.models import build
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.onnx import export, write
from rtsep.nn.streaming import Bound, Controlled
from rtsep.train.loop import improvement
from rtsep.train.losses import named
from tests.support.miniatures import MINIATURES, RATE, SOURCES, batches
from tests.support.models import TEXTS

STEPS = 40


def test_one_network_learns_either_source_and_is_told_which(tmp_path: Path) -> None:
    spec, options = MINIATURES["conditionedunet"]
    torch.manual_seed(0)
    model, frontend = build("conditionedunet", spec, options), Frontend(spec)
    assert isinstance(model, Controlled)
    compute = named("snr")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    draw = torch.Generator().manual_seed(0)
    for _, (mixture, target) in zip(range(STEPS), batches(0), strict=False):
        chosen = torch.randint(2, (len(mixture),), generator=draw)
        control = {"stem": torch.eye(2)[chosen]}
        wanted = torch.where(chosen[:, None, None, None] == 0, target, target.flip(2))
        optimizer.zero_grad()
        compute(Bound(model, control), frontend, mixture, wanted).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()
    mixture, target = next(batches(1))
    bundle = export(model, spec, TEXTS)
    assert bundle.spec == spec
    write(bundle, tmp_path / "either.onnx")
    for index, name in enumerate(SOURCES):
        wanted = target if index == 0 else target.flip(2)
        bound = Bound(model, {"stem": torch.eye(2)[[index] * len(mixture)]})
        with torch.no_grad():
            estimate = separate(bound, frontend, mixture)
        assert improvement(estimate, wanted, mixture, "SI-SDRi")[:, 0].mean() >= 3.0
        x = mixture[0, :, 0].numpy()
        live = rtsep.separate(x, RATE, tmp_path / "either.onnx", controls={"stem": name})
        np.testing.assert_allclose(live["tone"], estimate[0, :, 0, 0].numpy(), atol=1e-5)
