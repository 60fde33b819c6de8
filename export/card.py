"""The card of a shipped bundle: figures, scores, training data, limits and attribution."""

from __future__ import annotations

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


def card(bundle: Bundle, recipe: dict[str, Any], trained: dict[str, str]) -> str:
    """Return the text of the card; this times the bundle for a second.

    Parameters
    ----------
    bundle
        Bundle with the quality in its metadata.
    recipe
        Recipe of the bundle.
    trained
        Record of the checkpoint: ``steps``, and ``minutes`` if known.
    """
    spec, told, mixtures = bundle.spec, recipe["training"], recipe["mixtures"]
    latency = Latency.of(spec, spec.step_length)
    weights, macs = bundle.cost()
    hours = int(trained["steps"].split()[0]) * mixtures["batch_size"] * mixtures["seconds"] / 3600
    minutes = f" in {trained['minutes']} minutes" if "minutes" in trained else ""
    measured = speed(bundle, core_peak())

    def ms(samples: int) -> str:
        return f"{1000 * samples / spec.sample_rate:.4g} ms"

    return f"""# {bundle.metadata["name"]}

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

## Comparison

{BESIDE[recipe["evaluation"]["folder"]]}

## Training

{told["data"]} Steps: {trained["steps"]}, {hours:.0f} hours of mixtures{minutes}, on one processor
core. Made by `python -m export {bundle.metadata["name"]} --data DATA`.

## Limits

{told["limits"]}

## Attribution

{told["attribution"]}
"""
