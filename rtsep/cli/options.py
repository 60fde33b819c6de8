"""Options that several commands share: device, model, and all that is chosen of a live stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import click
from click.core import ParameterSource

from rtsep import weights
from rtsep.cli import presets
from rtsep.devices.virtual_mic import DEFAULT as VIRTUAL_MIC
from rtsep.errors import LearnedError, OptionError
from rtsep.learned import live
from rtsep.learned.source import Source, check_name, read
from rtsep.realtime.builder import StreamOptions
from rtsep.runtime.bundle import Bundle

Command = TypeVar("Command", bound=Callable[..., Any])
Options = TypeVar("Options")
Decorators = tuple[Callable[[Any], Any], ...]


def _give(command: Command, options: Decorators) -> Command:
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def taken(kind: type[Options], options: Mapping[str, Any]) -> Options:
    """Make a dataclass of those options that have the names of its fields."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in options.items() if name in names})


_DEVICE_OPTIONS = (
    click.option("-o", "--output", metavar="OUT", help="Output device, like --device."),
    click.option("--channels", type=click.IntRange(1, 64), default=1, help="Input channels; 1."),
    click.option(
        "--block", type=click.IntRange(16, 8192), default=128, help="Samples per device block; 128."
    ),
    click.option(
        "--buffer",
        "buffer_ms",
        type=click.FloatRange(0.0, 500.0),
        default=10.0,
        metavar="MS",
        help="Time the worker may take for a block, part of the latency; 10.",
    ),
)


def device_options(command: Command) -> Command:
    """Give a command the options that, with --device, say how a device is opened.

    They are the fields of `rtsep.devices.open.DeviceOptions`.
    """
    return _give(command, _DEVICE_OPTIONS)


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


def model_options(command: Command) -> Command:
    """Give a command the options that say what separates, see `choose`."""
    return _give(command, _MODEL_OPTIONS)


def _set_preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Make a preset's options the defaults of those that are not given."""
    if name is not None:
        context.default_map = {**(context.default_map or {}), **presets.find(name).options()}


_STREAM_OPTIONS = (
    *_DEVICE_OPTIONS,
    click.option(
        "--virtual-mic",
        is_flag=False,
        flag_value=VIRTUAL_MIC,
        metavar="[NAME]",
        help="Play into a microphone of this name, which other programs can choose; rtsep.",
    ),
    click.option(
        "--scene",
        is_eager=True,
        expose_value=False,
        callback=_set_preset,
        metavar="NAME",
        help="Take model, gains and the like from a scene: call, karaoke, practice-without-drums, "
        "or one of yours; options beside it win.",
    ),
    *_MODEL_OPTIONS,
    click.option("-l", "--listen", metavar="SOURCE", help="Source to hear; the first by default."),
    click.option(
        "-g",
        "--gain",
        multiple=True,
        metavar="SOURCE=dB",
        help="Hear this source at this gain; may be repeated.",
    ),
    click.option(
        "-r",
        "--record",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write mixture.wav, one WAV per source and spectrograms.png there; with a number "
        "where there are such files.",
    ),
    click.option(
        "-s", "--seconds", type=click.FloatRange(min=0.0, min_open=True), help="Then stop."
    ),
    click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the summary there.",
    ),
    click.option(
        "--on-late",
        type=click.Choice(["dry", "mute"]),
        default="dry",
        help="Hear the mixture (dry) or silence (mute) while the worker is late; dry.",
    ),
    click.option(
        "--limit",
        "limit_db",
        type=click.FloatRange(-60.0, 0.0),
        metavar="dBFS",
        help="Play nothing louder than this; off by default.",
    ),
    click.option(
        "--reconnect/--no-reconnect",
        default=True,
        help="Wait for a device that goes away, and go on with it; on.",
    ),
    click.option(
        "--give-up",
        "give_up_s",
        type=click.FloatRange(min=0.0),
        metavar="S",
        help="End after so long without the device, with exit code 3; never by default.",
    ),
    click.option(
        "--realtime",
        type=click.Choice(["on", "off"]),
        default="on",
        callback=lambda _context, _option, value: value == "on",
        help="Ask the system for real-time scheduling and locked memory; on.",
    ),
)
"""Those of a live stream. What has the name of a field of `StreamOptions` gets there by itself."""


def stream_options(command: Command) -> Command:
    """Give a command all options of a live stream but --device."""
    return _give(command, _STREAM_OPTIONS)


def of_stream(context: click.Context, options: Mapping[str, Any]) -> StreamOptions:
    """Put the options of `stream_options` together for `rtsep.realtime.builder.Stream`.

    Raises
    ------
    OptionError
        A gain is no SOURCE=dB.
    """
    listen, gain = options["listen"], options["gain"]
    if listen is not None and context.get_parameter_source("gain") == ParameterSource.DEFAULT_MAP:
        gain = ()  # it is not a scene's sources that are to be heard
    gains = {} if listen is None else {listen: 0.0}
    for setting in gain:
        name, _, value = setting.partition("=")
        try:
            gains[name] = float(value)
        except ValueError:
            raise OptionError(f"--gain needs SOURCE=dB, not {setting!r}") from None
    return replace(taken(StreamOptions, options), gains=gains or None)


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
