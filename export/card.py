"""The card of a shipped bundle: figures, scores, training data, limits and attribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtsep.benchmark.roofline import core_peak, speed
from rtsep.latency import Latency, counted
from rtsep.runtime.bundle import Bundle

BESIDE = {
    "bench/speech_noise": """\
| on the same mixtures, each streaming | latency | SI-SDRi dB | PESQ-WB | ESTOI |
|---|---|---|---|---|
| the mixture itself | | 0 | 1.38 | .598 |
| decision-directed Wiener filter | 32 ms | 3.27 | 1.61 | .603 |
| RNNoise (2024 model) | 30 ms | 6.12 | 1.70 | .690 |
| GTCRN (DNS3) | 32 ms | 7.80 | 1.91 | .675 |
| DTLN | 32 ms | 8.94 | 1.90 | .677 |
| UL-UNAS | 32 ms | 9.36 | 2.11 | .717 |
| DPCRN (DNS3) | 32 ms | 10.39 | 2.46 | .736 |

The others were run with their own published weights, most of them trained on several hundred
hours.""",
    "bench/two_speakers": """\
On the same pairs, supervised non-negative matrix factorisation (K = 40) reaches 4.3 dB, knowing
both speakers beforehand; ideal ratio masks 13.0 dB with windows of 32 ms, 8.7 dB with 8 ms.""",
    "bench/music": """\
On the same excerpts the mixture itself scores -4.8 dB, ideal ratio masks of 1024/256 10.9 dB.""",
}
"""Scores of other methods, by the folder of the evaluation."""
KEPT = """\
Measured by `python -m bench.keep`: 20 pairs of speakers never heard, at equal level, without
noise; each of the two is kept in turn, after 10 s of other sentences. Without an enrolled voice,
all voices are kept."""
"""What stands in its place for a model that keeps a voice."""


def card(bundle: Bundle, sections: Mapping[str, str]) -> str:
    """Return the text of the card; this times the bundle for a second.

    Parameters
    ----------
    bundle
        Bundle with the quality in its metadata.
    sections
        Texts after the figures, by their headings.
    """
    spec = bundle.spec
    latency = Latency.of(spec, spec.step_length)
    weights, macs = bundle.cost()
    measured = speed(bundle, core_peak())

    def ms(samples: int) -> str:
        return f"{1000 * samples / spec.sample_rate:.4g} ms"

    figures = f"""# {bundle.metadata["name"]}

{bundle.metadata["model"]}.

| | |
|---|---|
| sources | {", ".join(spec.sources)} |
| sample rate | {spec.sample_rate} Hz |
| latency | {ms(latency.total)}: overlap {ms(latency.overlap)}, lookahead {ms(latency.lookahead)}; \
{ms(counted(spec))} counted as window and lookahead |
| size | {weights:,} weights, {len(bundle.graph) / 1e6:.2f} MB |
| load | {macs / 1e6:.1f} million multiply-accumulates per second of audio; real-time factor of \
the network {measured.real_time_factor:.4f} on one core of a virtual EPYC server |
| quality | {bundle.metadata["quality"]} |
| licence | {bundle.metadata["licence"]} |
"""
    texts = (f"## {heading}\n\n{text}\n" for heading, text in sections.items())
    return "\n".join([figures, *texts])


def of_recipe(recipe: Mapping[str, Any], trained: Mapping[str, str]) -> dict[str, str]:
    """Return the sections of a trained bundle's card.

    Parameters
    ----------
    recipe
        Recipe of the bundle.
    trained
        Record of the checkpoint: ``steps``, and, but in older ones, ``minutes`` and ``hours`` of
        mixtures.
    """
    told, mixtures = recipe["training"], recipe["mixtures"]
    hours = int(trained["steps"].split()[0]) * mixtures["batch_size"] * mixtures["seconds"] / 3600
    hours = float(trained.get("hours", hours))
    minutes = f" in {trained['minutes']} minutes" if "minutes" in trained else ""
    compared = BESIDE[recipe["evaluation"]["folder"]] if "evaluation" in recipe else KEPT
    return {
        "Comparison": compared,
        "Training": f"""{told["data"]} Steps: {trained["steps"]}, {hours:.0f} hours of \
mixtures{minutes}, on one processor core. Made by
`python -m export {recipe["name"]} --data DATA`.""",
        "Limits": told["limits"],
        "Attribution": told["attribution"],
    }
