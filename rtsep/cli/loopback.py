"""``rtsep loopback``: measure the round trip of a sound card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rtsep.cli import fail
from rtsep.cli.options import device_options, taken
from rtsep.cli.report import write_json
from rtsep.devices.loopback import SWEEPS, measure
from rtsep.devices.open import DEFAULT, DeviceOptions, open_device
from rtsep.errors import DeviceError
from rtsep.version import __version__


@click.command()
@click.option(
    "-d",
    "--device",
    default=DEFAULT,
    metavar="IN",
    help="Input: an index or part of a name (see `rtsep devices`); the system's default.",
)
@device_options
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the figures to this file.",
)
def loopback(device: str, json_path: Path | None, **options: Any) -> None:
    """Measure the round trip of a sound card and compare it with the declared one.

    Connect an output to an input with a cable, or put the microphone beside the loudspeaker (a
    metre of air adds 2.9 ms). Sweeps are played at -20 dB for five seconds. In `rtsep run`, the
    terms of the model are added to this round trip. The exit code is 1 if no sweep was received.

    \b
    Examples:
      rtsep loopback
      rtsep loopback --device USB --json loopback.json
    """  # noqa: D301
    if device == "demo" or Path(device).is_file():
        raise DeviceError(f"{device} is no sound card: a round trip needs an input and an output")
    stream = open_device(device, taken(DeviceOptions, options))
    block = stream.block
    click.echo(f"{SWEEPS} sweeps on {stream.name}, {stream.sample_rate} Hz, blocks of {block}")
    found = measure(stream)
    if found is None:
        fail(
            "no sweep came back: connect an output to an input, turn both up, and name them with "
            "--output and --device"
        )
        click.get_current_context().exit(1)
    ms = 1000 / stream.sample_rate
    terms = {name: round(ms * n, 3) for name, n in stream.latency_terms().items()}
    declared, measured = sum(terms.values()), ms * found.samples
    stats = stream.stats()
    summary: dict[str, Any] = {
        "rtsep": __version__,
        "device": stream.name,
        "sample_rate_hz": stream.sample_rate,
        "block": block,
        "measured_ms": round(measured, 3),
        "declared_ms": round(declared, 3),
        "difference_ms": round(measured - declared, 3),
        "declared_terms_ms": terms,
        "sweeps_played": SWEEPS,
        "sweeps_heard": len(found.delays),
        "spread_ms": round(ms * found.spread, 3),
        "xruns": stats.xruns,
        "missed_callbacks": stats.missed,
        "deadline_misses": stats.starvations,
    }
    click.echo(
        f"measured {measured:.1f} ms ({len(found.delays)} of {SWEEPS} sweeps heard, "
        f"{ms * found.spread:.2f} ms apart)\n"
        f"declared {declared:.1f} ms = "
        + " + ".join(f"{name} {value:.1f}" for name, value in terms.items())
        + f"\ndifference {measured - declared:+.1f} ms"
    )
    if found.spread > block:
        click.echo(
            f"the sweeps disagree: xruns {stats.xruns}, missed callbacks {stats.missed}, deadline "
            f"misses {stats.starvations}; measure again on a quieter machine or with more --buffer"
        )
    if json_path is not None:
        write_json(json_path, summary)
