"""All scores of the estimates of one mixture."""

from __future__ import annotations

import importlib.util
import re
from itertools import permutations, product

import numpy as np

from rtsep.evaluate.metrics import METRICS, Metric, separated, si_sdr_db
from rtsep.spec import Float32

SILENT_DB = -80.0
"""A source below this RMS level, re full scale, is silent and gets no scores."""

_SPEECH = re.compile(r"(speech|speaker|voice|talker|s)\d*")


def is_speech(source: str) -> bool:
    """Return whether a source is speech, for PESQ and STOI: speech, speaker1, voice2, s1, ..."""
    return _SPEECH.fullmatch(source) is not None


def _available(metric: Metric) -> bool:
    return not metric.package or importlib.util.find_spec(metric.package) is not None


def missing_packages() -> list[str]:
    """Return a sentence for each package without which metrics are left out."""
    missing: dict[str, list[str]] = {}
    for metric in METRICS.values():
        if not _available(metric):
            missing.setdefault(metric.package, []).append(metric.label)
    return [
        f"without {', '.join(labels)}: the package {package} is missing (pip install {package})"
        for package, labels in missing.items()
    ]


def silent(sound: Float32) -> bool:
    """Return whether the RMS level of a source is below `SILENT_DB`."""
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    return power < 10 ** (SILENT_DB / 10)


def scores(
    estimates: Float32, references: Float32, rate_hz: int, names: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Compute the scores of every estimate.

    Parameters
    ----------
    estimates, references
        (sources, n, channels); no reference may be silent.
    rate_hz
        Sample rate of both.
    names
        Names of the sources; some metrics are for speech only, see `is_speech`.

    Returns
    -------
    dict
        Scores by source and key of `METRICS`, without metrics that are for speech only or whose
        package is missing; NaN if undefined.
    """
    chosen = {key: metric for key, metric in METRICS.items() if _available(metric)}
    return {
        name: {
            key: metric.score(of)
            for key, metric in chosen.items()
            if is_speech(name) or not metric.of_speech
        }
        for name, of in zip(names, separated(estimates, references, rate_hz), strict=True)
    }


def best_order(estimates: Float32, references: Float32, names: tuple[str, ...]) -> list[int]:
    """Return the index of the estimate for each reference.

    Sources whose names differ only in a number (speaker1, speaker2) are put into the order with the
    best mean SI-SDR. All others keep their index.

    Parameters
    ----------
    estimates, references
        (sources, n, channels).
    names
        Names of the sources.
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name.rstrip("0123456789"), []).append(index)
    order = list(range(len(names)))
    for group in groups.values():
        quality = {(x, s): si_sdr_db(estimates[x], references[s]) for x, s in product(group, group)}
        orders = [list(zip(chosen, group, strict=True)) for chosen in permutations(group)]
        totals = [sum(quality[pair] for pair in pairs) for pairs in orders]
        for estimate, reference in orders[int(np.argmax(totals))]:
            order[reference] = estimate
    return order
