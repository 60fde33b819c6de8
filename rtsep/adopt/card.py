"""The card of an adopted model: who made it, its licence, its figures."""

from __future__ import annotations

from pathlib import Path

from rtsep.errors import AdoptError
from rtsep.files.atomic import replacing
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


def write(bundle: Bundle, path: Path) -> None:
    """Write a bundle, and its card beside it with the suffix ``.md``: both or none.

    Raises
    ------
    AdoptError
        The path does not end in ``.onnx``, or can't be written.
    """
    if path.suffix != ".onnx":
        raise AdoptError(f"the bundle's name must end in .onnx, not {path.name!r}")
    try:
        with replacing(path.with_suffix(".md")) as text, replacing(path) as part:
            text.write_text(card(bundle), encoding="utf-8")
            part.write_bytes(bundle.graph)
    except OSError as error:
        raise AdoptError(f"{path} can't be written: {error.strerror}") from None
