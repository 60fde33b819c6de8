from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import models


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 16 kHz with spectra and a state, which loads quickly."""
    spec = replace(models.CHANDNA, window_length=128, hop_length=32, lookahead=1)
    return models.write(models.handmade(spec), tmp_path_factory.mktemp("model") / "tiny.onnx")
