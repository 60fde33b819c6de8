"""The card of an adopted model: who made it, its licence, its figures."""

from __future__ import annotations

from rtsep.latency import Latency, counted
from rtsep.runtime.bundle import Bundle


def card(bundle: Bundle) -> str:
    """Return the card as Markdown."""
    spec, texts = bundle.spec, bundle.metadata
    latency = Latency.of(spec, spec.step_length)
    weights, work = bundle.cost()
    ms = 1000 / spec.sample_rate
    return "\n".join(
        [
            f"# {texts['name']}",
            "",
            f"{texts['model']}.",
            "",
            "This model is not ours: rtsep only changed the names and shapes of its inputs and",
            "outputs.",
            "",
            "| | |",
            "|---|---|",
            f"| weights | {texts['training']} |",
            f"| licence | {texts['licence']} |",
            f"| sources | {', '.join(spec.sources)} |",
            f"| sample rate | {spec.sample_rate} Hz |",
            f"| latency | {latency.total * ms:.0f} ms; {counted(spec) * ms:.0f} ms counted as "
            "window and lookahead |",
            f"| size | {weights:,} weights, {len(bundle.graph) / 1e6:.2f} MB |",
            f"| load | {work / 1e6:.1f} million multiply-accumulates per second of audio |",
            f"| quality | {texts['quality']} |",
            "",
        ]
    )
