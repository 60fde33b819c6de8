"""Scores of a bundle on a fixed set of mixtures, from what ``rtsep separate`` writes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import soundfile

from rtsep.metrics import estoi, pesq_wb, si_sdr_db


def evaluate(
    folder: Path, sources: Sequence[str], model: str | None = None, exchangeable: bool = False
) -> dict[str, float]:
    """Mean scores over all mixtures of a folder and the named sources.

    Parameters
    ----------
    folder
        Holds ``NNN_mixture.flac`` beside ``NNN_<source>.flac``, or folders with ``mixture.flac``
        beside ``<source>.flac``; mono.
    sources
        Which of the model's sources are scored.
    model
        As ``--model``.
    exchangeable
        Whether sources may come out in any order: each mixture's best one counts.

    Returns
    -------
    dict
        ``mixtures`` (how many), ``si_sdr_improvement_db``, at 16 kHz ``pesq_wb`` and ``estoi``, and
        what the mixture itself scores, ``*_mixture``. Sources that are silent don't count.

    Raises
    ------
    ValueError
        The folder holds no mixtures.
    """
    mixtures = sorted((*folder.glob("*_mixture.flac"), *folder.glob("*/mixture.flac")))
    if not mixtures:
        raise ValueError(f"{folder} holds no *_mixture.flac and no */mixture.flac")
    rows = []
    with tempfile.TemporaryDirectory() as out:
        for place in sorted({path.parent for path in mixtures}):
            here = [path for path in mixtures if path.parent == place]
            stems = Path(out, place.name)
            command = [sys.executable, "-m", "rtsep", "separate", *map(str, here), "-o", str(stems)]
            command += ["--model", model] if model else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for path in here:
                rows += _score(path, sources, stems, exchangeable)
    means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    return {"mixtures": len(mixtures), **means}


def _score(
    path: Path, sources: Sequence[str], stems: Path, exchangeable: bool
) -> list[dict[str, float]]:
    """Scores of the sources of one mixture that are not silent."""
    mixture, rate = soundfile.read(path)
    clean = [soundfile.read(path.with_stem(path.stem.replace("mixture", s)))[0] for s in sources]
    estimates = [soundfile.read(stems / f"{path.stem}_{s}.wav")[0] for s in sources]
    if exchangeable:
        estimates = max(
            (list(order) for order in permutations(estimates)),
            key=lambda order: sum(map(si_sdr_db, order, clean)),
        )
    rows = []
    for target, estimate in zip(clean, estimates, strict=True):
        if not np.any(target):
            continue
        before = si_sdr_db(mixture, target)
        row = {
            "si_sdr_improvement_db": si_sdr_db(estimate, target) - before,
            "si_sdr_mixture_db": before,
        }
        if rate == 16000:
            row |= {
                "pesq_wb": pesq_wb(estimate, target),
                "pesq_wb_mixture": pesq_wb(mixture, target),
                "estoi": estoi(estimate, target, rate),
                "estoi_mixture": estoi(mixture, target, rate),
            }
        rows.append(row)
    return rows
