"""The options that say how a device is opened."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import click

_OPTIONS = (
    click.option("-o", "--output", metavar="OUT", help="Output device, like --device."),
    click.option("--channels", type=click.IntRange(1, 64), default=1, help="Input channels; 1."),
    click.option(
        "--block", type=click.IntRange(16, 8192), default=128, help="Samples per device block; 128."
    ),
    click.option(
        "--buffer",
        type=click.FloatRange(0.0, 500.0),
        default=10.0,
        metavar="MS",
        help="Time the worker may take for a block, part of the latency; 10.",
    ),
)


def device_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that, with --device, say how a device is opened."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
