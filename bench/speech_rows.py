"""How well a model does in noise, babble, music, silence, clean speech and after level steps.

python -m bench.speech_rows --model NAME_OR_BUNDLE --data DATA --sets DIR [--json FILE]

DIR is of ``python -m bench.speech_sets``. All sound passes the live engine. Scores:

- speech in noise (DATA/bench/speech_noise), babble and music: SI-SDR improvement, PESQ-WB and
  ESTOI, as of ``rtsep eval``, beside those of the mixture;
- clean speech: PESQ-WB of the stem against the input, beside that of the input itself;
- noise alone: level of the input less that of the stem of speech, in dB, at most `MOST_DB`;
- level steps: SI-SDR improvement from 0.3 s and from 1 s after the step to the end, beside that of
  the same stretch where the whole file has the level after the step; the change, also of each file
  in the JSON, is what the step costs.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rtsep
from bench.speech_sets import BABBLE, CLEAN, MUSIC, NOISE, SETS, STEPS
from rtsep.api import Separation
from rtsep.errors import EvaluationError, RtsepError
from rtsep.evaluate.evaluation import Evaluation
from rtsep.evaluate.metrics import pesq, si_sdr_db
from rtsep.evaluate.report import check_target, write
from rtsep.evaluate.score import missing_packages, silent
from rtsep.files.readers import read_all
from rtsep.spec import Float32

EXAMPLES = """\
examples:
  python -m bench.speech_sets --data DATA --out sets
  python -m bench.speech_rows --model speech --data DATA --sets sets
  python -m bench.speech_rows --model my.onnx --data DATA --sets sets --json rows.json
"""
SPEECH = "speech"
RATE_HZ = 16000
MOST_DB = 60.0
"""Attenuation that counts at most: a stem of zeros is not infinitely better."""
BARS = Console(stderr=True)
"""Shows progress; the output is the table alone."""
AFTER_S = 0.3, 1.0
"""From so long after the step on."""
SCORES = {"SI-SDRi dB": ("si_sdr_db", 2), "PESQ-WB": ("pesq_wb", 2), "ESTOI": ("estoi", 3)}
"""Of mixtures, by their heads: as `Evaluation` calls them, and digits."""


@dataclass(frozen=True)
class Row:
    """One line of the table; NaN in ``beside`` if there is nothing to compare with."""

    set: str
    score: str
    value: float
    beside: float = math.nan
    digits: int = 2
    files: dict[str, float] = field(default_factory=dict)


def mixtures(label: str, folder: Path, model: str) -> list[Row]:
    """Score mixtures with speech as ``rtsep eval`` does."""
    evaluation = Evaluation(folder, model)
    for item in track(evaluation.items, label, transient=True, console=BARS):
        evaluation.add(item)
    found = evaluation.summary().get(SPEECH, {})
    heard = [row for row in evaluation.rows if row.source == SPEECH]
    rows = []
    for name, (metric, digits) in SCORES.items():
        if metric not in found:
            continue
        score = found[metric]
        if name == "SI-SDRi dB":
            files = {row.item: row.estimate[metric] - row.mixture[metric] for row in heard}
            rows.append(Row(label, name, score.improvement, 0.0, digits, files))
        else:
            files = {row.item: row.estimate[metric] for row in heard}
            rows.append(Row(label, name, score.mean, score.mixture, digits, files))
    return rows


def clean(folder: Path, speech: Callable[[Float32], Float32]) -> list[Row]:
    """Say how much clean speech suffers."""
    files, best = {}, []
    for row in listed(folder):
        sound = read(folder / f"{row['id']}_mixture.flac")
        files[row["id"]] = pesq(speech(sound), sound, RATE_HZ, "wb")
        best.append(pesq(sound, sound, RATE_HZ, "wb"))
    return [Row("clean speech", "PESQ-WB", mean(files.values()), mean(best), 2, files)]


def noise(folder: Path, speech: Callable[[Float32], Float32]) -> list[Row]:
    """Say how far noise without speech is attenuated."""
    files: dict[str, float] = {}
    for row in listed(folder):
        sound = read(folder / f"{row['id']}_mixture.flac")
        powers = [float(np.mean(np.square(x, dtype=np.float64))) for x in (sound, speech(sound))]
        ratio_db = 10 * math.log10(max(powers[0], 1e-20) / max(powers[1], 1e-20))
        files[row["noise"]] = min(ratio_db, MOST_DB)
    least = min(files, key=files.__getitem__)
    return [
        Row("noise alone", "attenuation dB, mean", mean(files.values()), digits=1, files=files),
        Row("noise alone", f"attenuation dB, least: {least}", files[least], digits=1),
    ]


def steps(folder: Path, speech: Callable[[Float32], Float32]) -> list[Row]:
    """Compare speech after a step of level with the same at a constant level."""
    found: dict[tuple[float, float], dict[str, tuple[float, float]]] = {}
    for row in listed(folder):
        mixture, clean = (read(folder / f"{row['id']}_{x}.flac") for x in ("mixture", "speech"))
        middle, step_db = len(mixture) // 2, float(row["step_db"])
        constant = mixture.copy()
        constant[:middle] *= np.float32(10 ** (step_db / 20))
        estimates = speech(mixture), speech(constant)
        for after_s in AFTER_S:
            part = slice(middle + round(after_s * RATE_HZ), None)
            if len(clean[part]) and not silent(clean[part]):
                before = si_sdr_db(mixture[part], clean[part])
                gains = [si_sdr_db(estimate[part], clean[part]) - before for estimate in estimates]
                found.setdefault((step_db, after_s), {})[row["id"]] = gains[0], gains[1]
    return [
        Row(
            f"level step {step_db:+g} dB",
            f"SI-SDRi dB from {after_s:g} s after it",
            mean(stepped for stepped, _ in files.values()),
            mean(constant for _, constant in files.values()),
            files={name: stepped - constant for name, (stepped, constant) in files.items()},
        )
        for (step_db, after_s), files in sorted(found.items(), reverse=True)
    ]


def mean(values: Iterable[float]) -> float:
    """Mean of what is defined; NaN if nothing is."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def stem(separation: Separation, sound: Float32) -> Float32:
    """Separate (n,) samples into as many of speech, aligned."""
    parts = separation.process(sound)[SPEECH], separation.flush()[SPEECH]
    return np.concatenate(parts)[separation.latency.samples :]


def listed(folder: Path) -> Iterable[dict[str, str]]:
    """Rows of a set, with a progress bar."""
    with (folder / "list.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return track(rows, folder.name, transient=True, console=BARS)


def read(path: Path) -> Float32:
    """Samples of a file of a set, (n,)."""
    sound, rate_hz = read_all(path)
    if (rate_hz, sound.shape[1]) != (RATE_HZ, 1):
        raise EvaluationError(f"{path} must be mono at {RATE_HZ} Hz, as bench.speech_sets writes")
    return sound[:, 0]


def measure(model: str, data: Path, sets: Path) -> list[Row]:
    """All rows of a model.

    Raises
    ------
    RtsepError
        A set is missing, or the model has no speech.
    """
    for name in SETS:
        if not (sets / name / "list.csv").is_file():
            raise EvaluationError(
                f"{sets} lacks {name}: python -m bench.speech_sets --data {data} --out {sets}"
            )
    separation = rtsep.load(model, sample_rate=RATE_HZ)
    if SPEECH not in separation.sources:
        found = ", ".join(separation.sources)
        raise EvaluationError(f"{model} separates {found}, but these sets are for {SPEECH}")
    speech = partial(stem, separation)
    return [
        *mixtures("speech in noise", data / "bench" / "speech_noise", model),
        *mixtures("speech in babble", sets / BABBLE, model),
        *mixtures("speech in music", sets / MUSIC, model),
        *(clean(sets / CLEAN, speech) if find_spec("pesq") is not None else []),
        *noise(sets / NOISE, speech),
        *steps(sets / STEPS, speech),
    ]


def table(rows: list[Row]) -> Table:
    """Tabulate; `without` is the mixture, the input, or the same without a step."""
    result = Table(box=None, pad_edge=False)
    for head in ("set", "score"):
        result.add_column(head)
    for head in ("value", "without", "change"):
        result.add_column(head, justify="right")
    last = ""
    for row in rows:
        cells = [f"{row.value:z.{row.digits}f}"]
        if math.isfinite(row.beside):
            change = row.value - row.beside
            cells += [f"{row.beside:z.{row.digits}f}", f"{change:+z.{row.digits}f}"]
        result.add_row(row.set if row.set != last else "", row.score, *cells)
        last = row.set
    return result


def as_json(model: str, rows: list[Row]) -> str:
    """Put the rows into JSON, with the figure of every file; what is undefined is null."""

    def plain(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    return json.dumps(
        {
            "rtsep": rtsep.__version__,
            "model": model,
            "rows": [
                {
                    "set": row.set,
                    "score": row.score,
                    "value": plain(row.value),
                    "without": plain(row.beside),
                    "files": {name: plain(value) for name, value in row.files.items()},
                }
                for row in rows
            ],
        },
        indent=2,
        allow_nan=False,
    )


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="shipped model's name, or a bundle's path")
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/speech_noise")
    parser.add_argument("--sets", type=Path, required=True, help="what bench.speech_sets wrote")
    parser.add_argument("--json", type=Path, help="write the rows and every file's figure")
    arguments = parser.parse_args()
    try:
        if arguments.json is not None:
            check_target(arguments.json)
        for sentence in missing_packages():
            print(sentence, file=sys.stderr)
        rows = measure(arguments.model, arguments.data, arguments.sets)
        Console().print(table(rows))
        if arguments.json is not None:
            text = as_json(arguments.model, rows)
            write(arguments.json, lambda file: file.write(text.encode()))
    except RtsepError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
