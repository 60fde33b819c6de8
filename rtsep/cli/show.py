"""``rtsep devices`` and ``info``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtsep import weights
from rtsep.benchmark.roofline import core_peak, speed
from rtsep.latency import Latency, counted
from rtsep.runtime.bundle import Bundle


@click.command()
def devices() -> None:
    """List the audio devices; --device takes an index or a part of a name.

    ``>`` marks the default input, ``<`` the default output, ``*`` both.

    \b
    Examples:
      rtsep devices
      rtsep devices | grep -i usb
    """  # noqa: D301
    from rtsep.devices.portaudio.library import listing

    click.echo(listing())


@click.command()
@click.argument("model", required=False)
def info(model: str | None) -> None:
    """Print the figures of a bundle and its speed on this machine.

    MODEL is a shipped model's name or a file; by default the default model.

    \b
    Examples:
      rtsep info
      rtsep info my-model.onnx
    """  # noqa: D301
    bundle = weights.find(model)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in {**facts(bundle), "speed": measured(bundle)}.items():
        table.add_row(name, Text(value))
    Console().print(table)


def measured(bundle: Bundle) -> str:
    """Time the model on one core for about a second; return the figures as text."""
    peak = core_peak()
    found = speed(bundle, peak)
    how = "on the tape" if found.tape else "in ONNX Runtime"
    return (
        f"{found.median_s * 1e6:.0f} µs per call {how}, on one core of this machine (median; p99 "
        f"{found.p99_s * 1e6:.0f} µs), real-time factor {found.real_time_factor:.4f}, "
        f"{found.roofline_share:.1%} of the core's peak of {peak / 1e9:.0f} GFLOP/s"
    )


def _controls(bundle: Bundle) -> str:
    """Return name, values, meaning and range of each control."""
    found = []
    for name, one in bundle.controls.items():
        values = "+".join(one.labels) or f"{len(one.default)} numbers"
        found.append(f"{name}={values}: {one.meaning}, {one.low:g} to {one.high:g}")
    return "; ".join(found)


def facts(bundle: Bundle) -> dict[str, str]:
    """Return the lines of `rtsep info` about the bundle, by name."""
    spec = bundle.spec
    latency = Latency.of(spec, spec.step_length)
    weights_count, macs = bundle.cost()

    def ms(samples: int) -> str:
        return f"{1000 * samples / spec.sample_rate:.1f} ms"

    short = spec.synthesis_length < spec.window_length
    length = f"{spec.window_length}" + f", {spec.synthesis_length} back" * short
    frame = f"{spec.window} window of {length}, hop {spec.hop_length}"
    shapes = ", ".join(f"{name} {list(state.shape)}" for name, state in bundle.states.items())
    return {
        "name": bundle.metadata["name"],
        "file": str(bundle.path),
        "model": bundle.metadata["model"],
        "sources": ", ".join(spec.sources),
        "rate": f"{spec.sample_rate} Hz",
        "channels": "any number, each a separate stream"
        if spec.channels == 1
        else f"{spec.channels}, jointly",
        "frames": f"{spec.frontend}, {frame} samples, {spec.chunk} per call",
        "latency": f"{ms(counted(spec))} = window + lookahead ({spec.lookahead} frames); "
        f"{ms(latency.total)} in blocks of whole hops: overlap {ms(latency.overlap)}, lookahead "
        f"{ms(latency.lookahead)}",
        "size": f"{len(bundle.graph) / 1e6:.2f} MB, {weights_count:,} weights",
        "load": f"{macs / 1e6:.1f} million multiply-accumulates per second of audio",
        "states": f"{shapes or 'none'} ({bundle.state_bytes / 1024:.1f} kB per stream)",
        **({"controls": _controls(bundle)} if bundle.controls else {}),
        "training": bundle.metadata["training"],
        "licence": bundle.metadata["licence"],
        "quality": bundle.metadata["quality"],
        "made by": f"rtsep {bundle.metadata['version']}",
    }
