"""Scores of a bundle on a fixed set of mixtures, from what ``rtsep separate`` writes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from rtsep.metrics import estoi, pesq_wb, si_sdr_db


def evaluate(folder: Path, source: str, model: str | None = None) -> dict[str, float]:
    """Mean scores of one source over all mixtures of a folder.

    Parameters
    ----------
    folder
        Holds ``NNN_mixture.flac`` and ``NNN_<source>.flac``, 16 kHz mono.
    source
        Which of the model's sources is scored.
    model
        As ``--model``.

    Returns
    -------
    dict
        ``mixtures`` (how many), ``si_sdr_improvement_db``, ``pesq_wb``, ``estoi`` and what the
        mixture itself scores, ``*_mixture``.

    Raises
    ------
    ValueError
        The folder holds no mixtures.
    """
    mixtures = sorted(folder.glob("*_mixture.flac"))
    if not mixtures:
        raise ValueError(f"{folder} holds no *_mixture.flac")
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "rtsep", "separate", *map(str, mixtures), "-o", out]
        command += ["--model", model] if model else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = [_score(path, source, Path(out)) for path in mixtures]
    means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    return {"mixtures": len(rows), **means}


def _score(path: Path, source: str, stems: Path) -> dict[str, float]:
    mixture, rate = soundfile.read(path)
    clean, _ = soundfile.read(path.with_name(path.name.replace("mixture", source)))
    estimate, _ = soundfile.read(stems / f"{path.stem}_{source}.wav")
    before = si_sdr_db(mixture, clean)
    return {
        "si_sdr_improvement_db": si_sdr_db(estimate, clean) - before,
        "si_sdr_mixture_db": before,
        "pesq_wb": pesq_wb(estimate, clean),
        "pesq_wb_mixture": pesq_wb(mixture, clean),
        "estoi": estoi(estimate, clean, rate),
        "estoi_mixture": estoi(mixture, clean, rate),
    }
