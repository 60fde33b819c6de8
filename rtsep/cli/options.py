"""Options that several commands share: how a device is opened, and which model separates."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypedDict

import click

from rtsep import weights
from rtsep.errors import LearnedError
from rtsep.learned import live
from rtsep.learned.source import Source, check_name, read
from rtsep.runtime.bundle import Bundle

_DEVICE_OPTIONS = (
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
    return reduce(lambda decorated, option: option(decorated), reversed(_DEVICE_OPTIONS), command)


class Choice(TypedDict):
    """The options of `model_options` as a command gets them."""

    model: str | None
    sources: str | None
    rest: str | None
    learn_noise: float | None
    steps: int | None


_MODEL_OPTIONS = (
    click.option("-m", "--model", help="Shipped model's name, or a bundle's path."),
    click.option(
        "--sources",
        metavar="A.rtsep,B.rtsep",
        help="Separate into sources learned with `rtsep learn` instead.",
    ),
    click.option(
        "--rest",
        metavar="NAME",
        help="One more source, for what --sources leave; it starts as any voice and slowly learns.",
    ),
    click.option(
        "--learn-noise",
        type=click.FloatRange(0.5, 600.0),
        metavar="S",
        help="Learn the noise from the first S seconds, in which nobody may speak, then remove it.",
    ),
    click.option(
        "--steps",
        type=click.IntRange(1, 200),
        help=f"Updates per frame of learned sources: quality against load; {live.STEPS}, or "
        f"{live.REMOVAL_STEPS} with --learn-noise.",
    ),
)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what separates."""
    return reduce(lambda decorated, option: option(decorated), reversed(_MODEL_OPTIONS), command)


def read_all(paths: str) -> list[Source]:
    """Read the files of --sources."""
    return [read(Path(path)) for path in paths.split(",") if path]


def choose(choice: Choice) -> Bundle:
    """Find the shipped model or file, or make a bundle of learned sources.

    Raises
    ------
    LearnedError, BundleError
        It can't be read, or the options contradict each other.
    """
    learned, noise = choice["sources"], choice["learn_noise"]
    if learned is None and noise is None:
        if choice["rest"] is not None:
            raise LearnedError("--rest is what --sources leave: name a learned source, too")
        return weights.find(choice["model"])
    if choice["model"] is not None:
        raise LearnedError("--model is for trained bundles: leave it out with learned sources")
    sources = [weights.voice()] if learned is None else read_all(learned)
    usual = live.STEPS if noise is None else live.REMOVAL_STEPS
    options: dict[str, Any] = {"steps": choice["steps"] or usual}
    if choice["rest"] is not None:
        name = check_name(choice["rest"])
        options["rest"] = live.rest(name, sources[0].spec, weights.voice())
    if noise is not None:
        options |= {"noise": live.Noise("noise", noise), **live.REMOVAL}
    return live.bundle(sources, **options)
