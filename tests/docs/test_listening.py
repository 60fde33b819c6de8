"""The listening page: every mixture has players and pictures of what a bundle makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from export import listening
from rtsep import weights


def test_a_mixture_has_its_stems_as_players_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list(listening.mixtures())
    assert len(made) == len({mixture.title for mixture in made}) == 10
    monkeypatch.setattr(weights, "names", lambda: ["iva", "speech"])
    (tmp_path / "listening").mkdir()
    text = listening.section(made[0], 1, tmp_path / "listening")
    players, pictures = (re.findall(pattern, text) for pattern in (r'src="(.+?)"', r"\]\((.+?)\)"))
    assert len(players) == 3 and len(pictures) == 1
    assert all((tmp_path / picture).stat().st_size > 1000 for picture in pictures)
    mixture, speech, noise = (soundfile.read(tmp_path / path)[0] for path in players)
    assert len(mixture) == len(speech) == listening.SECONDS * made[0].rate_hz
    voice = made[0].sources["voice"]
    likeness = [abs(np.corrcoef(sound, voice)[0, 1]) for sound in (mixture, speech, noise)]
    assert likeness[1] > likeness[0] > likeness[2]
