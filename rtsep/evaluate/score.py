"""All scores of the estimates of one mixture."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import partial
from itertools import permutations, product

import numpy as np
import soxr

from rtsep.evaluate import metrics
from rtsep.evaluate.bss_eval import bss_eval
from rtsep.spec import Float32

LABELS = {
    "si_sdr_db": "SI-SDR dB",
    "si_sir_db": "SI-SIR dB",
    "si_sar_db": "SI-SAR dB",
    "snr_db": "SNR dB",
    "bss_sdr_db": "BSS SDR dB",
    "bss_isr_db": "BSS ISR dB",
    "bss_sir_db": "BSS SIR dB",
    "bss_sar_db": "BSS SAR dB",
    "pesq_wb": "PESQ-WB",
    "pesq_nb": "PESQ-NB",
    "stoi": "STOI",
    "estoi": "ESTOI",
}
"""Scores and their labels in tables."""
OF_ARTEFACTS = {"si_sar_db", "bss_sar_db"}
"""Scores of artefacts, undefined for the mixture, which has none."""
FRAME_S = 1.0
"""Frame length of BSS Eval, as in the campaigns."""
PESQ_RATE_HZ = 16000
"""Rates that PESQ does not support are resampled to this one."""
SILENT_DB = -80.0
"""A source below this RMS level, re full scale, is silent and gets no scores."""

_SPEECH = re.compile(r"(speech|speaker|voice|talker|s)\d*")


def is_speech(source: str) -> bool:
    """Return whether a source is speech, for PESQ and STOI: speech, speaker1, voice2, s1, ..."""
    return _SPEECH.fullmatch(source) is not None


def missing_packages() -> list[str]:
    """Return a sentence for each package without which scores are left out."""
    needed = {"pesq": "PESQ is", "pystoi": "STOI and ESTOI are"}
    return [
        f"{what} left out: the package {name} is missing (pip install {name})"
        for name, what in needed.items()
        if importlib.util.find_spec(name) is None
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
        Names of the sources; speech gets PESQ and STOI too.

    Returns
    -------
    dict
        Scores by source and name, as in `LABELS`; NaN if undefined.
    """
    bss = bss_eval(estimates, references, round(FRAME_S * rate_hz))
    found = {}
    for index, name in enumerate(names):
        estimate, reference = estimates[index], references[index]
        others = np.delete(references, index, axis=0).reshape(len(names) - 1, reference.size)
        sir, sar = metrics.si_sir_sar_db(estimate.ravel(), reference.ravel(), others)
        found[name] = {
            "si_sdr_db": metrics.si_sdr_db(estimate, reference),
            "si_sir_db": sir,
            "si_sar_db": sar,
            "snr_db": metrics.snr_db(estimate, reference),
            **{f"bss_{key}_db": float(value[index]) for key, value in bss._asdict().items()},
            **(_speech_scores(estimate, reference, rate_hz) if is_speech(name) else {}),
        }
    return found


def _speech_scores(estimate: Float32, reference: Float32, rate_hz: int) -> dict[str, float]:
    """Return PESQ and STOI, means over the channels, as far as their packages are installed."""

    def mean(score: Callable[[Float32, Float32, int], float]) -> float:
        channels = zip(estimate.T, reference.T, strict=True)
        return float(np.mean([score(x, s, rate_hz) for x, s in channels]))

    found = {}
    if importlib.util.find_spec("pesq") is not None:
        found["pesq_wb"] = mean(partial(_pesq, band="wb"))
        found["pesq_nb"] = mean(partial(_pesq, band="nb"))
    if importlib.util.find_spec("pystoi") is not None:
        found["stoi"] = mean(metrics.stoi)
        found["estoi"] = mean(partial(metrics.stoi, extended=True))
    return found


def _pesq(x: Float32, s: Float32, rate_hz: int, band: metrics.Band) -> float:
    """Compute PESQ at any rate, by resampling; NaN for the wide band at 8 kHz."""
    if rate_hz == 8000 and band == "wb":
        return float("nan")
    if rate_hz not in metrics.PESQ_RATES_HZ[band]:
        x, s = (soxr.resample(sound, rate_hz, PESQ_RATE_HZ) for sound in (x, s))
        rate_hz = PESQ_RATE_HZ
    return metrics.pesq(x, s, rate_hz, band)


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
        quality = {
            (x, s): metrics.si_sdr_db(estimates[x], references[s]) for x, s in product(group, group)
        }
        orders = [list(zip(chosen, group, strict=True)) for chosen in permutations(group)]
        totals = [sum(quality[pair] for pair in pairs) for pairs in orders]
        for estimate, reference in orders[int(np.argmax(totals))]:
            order[reference] = estimate
    return order
