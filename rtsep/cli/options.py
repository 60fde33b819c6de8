"""Options that several commands share: of the device, the model and the live stream."""

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
from rtsep.devices.control_block import MAX_BLOCK
from rtsep.devices.virtual_mic import DEFAULT as VIRTUAL_MIC
from rtsep.errors import LearnedError, OptionError
from rtsep.files.readers import MAX_CHANNELS
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
    click.option(
        "--channels",
        type=click.IntRange(1, MAX_CHANNELS),
        help="Input channels; those that the model needs, mostly 1.",
    ),
    click.option(
        "--block",
        type=click.IntRange(16, MAX_BLOCK),
        help="Samples per device block; JACK's, or else ones that complete the model's hops.",
    ),
    click.option(
        "--buffer",
        "buffer_ms",
        type=click.FloatRange(0.0, 500.0),
        metavar="MS",
        help="Fix the time the worker has for a block, a term of the latency; 10 at first, then "
        "what this machine needs.",
    ),
    click.option(
        "--low-latency",
        is_flag=True,
        help="Begin with short blocks and the least time for each; more after repeated misses.",
    ),
)


def device_options(command: Command) -> Command:
    """Add the options with which, beside --device, a device is opened.

    They are the fields of `rtsep.devices.open.DeviceOptions`.
    """
    return _give(command, _DEVICE_OPTIONS)


class Choice(TypedDict):
    """Values of the options of `model_options`."""

    model: str | None
    sources: str | None
    rest: str | None
    learn_noise: float | None
    steps: int | None
    controls: dict[str, str]
    keep: Path | None


def _settings(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--control needs NAME=VALUE, not {text!r}")
        settings[name] = value
    return settings


_MODEL_OPTIONS = (
    click.option("-m", "--model", help="Shipped model's name, or a bundle's path."),
    click.option(
        "--control",
        "controls",
        multiple=True,
        callback=_settings,
        metavar="NAME=VALUE",
        help="Set a control of the model, see `rtsep info`: labels joined by +, or numbers "
        "separated by commas; may be repeated.",
    ),
    click.option(
        "--keep",
        type=click.Path(path_type=Path),
        metavar="ME.voice",
        help="Keep the voice made with `rtsep enroll`; other voices and noise are the rest.",
    ),
    click.option(
        "--sources",
        metavar="A.rtsep,B.rtsep",
        help="Separate into sources learned with `rtsep learn` instead.",
    ),
    click.option(
        "--rest",
        metavar="NAME",
        help="Add a source for the remainder; it starts as a general voice and adapts slowly.",
    ),
    click.option(
        "--learn-noise",
        type=click.FloatRange(0.5, 600.0),
        metavar="S",
        help="Learn the noise from the first S seconds, without speech, then remove it.",
    ),
    click.option(
        "--steps",
        type=click.IntRange(1, 200),
        help=f"Updates per frame of learned sources; more improve quality and raise the load. "
        f"{live.STEPS}, or {live.REMOVAL_STEPS} with --learn-noise.",
    ),
)


def model_options(command: Command) -> Command:
    """Add the options that select the model, see `choose`."""
    return _give(command, _MODEL_OPTIONS)


_STEM_OPTIONS = (
    click.option(
        "--floor",
        "floor_db",
        type=click.FloatRange(max=0.0),
        metavar="dB",
        help="Leave the other sources in each stem at this level; the model's default.",
    ),
    click.option(
        "--full-band/--no-full-band",
        default=True,
        help="Give the stems the band above the model's, too, so that they add up to the mixture; "
        "on.",
    ),
)


def stem_options(command: Command) -> Command:
    """Add the options of what is done to stems, see `rtsep.runtime.engine.StemOptions`."""
    return _give(command, _STEM_OPTIONS)


def _set_preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Use a preset's options as defaults of the options that are not given."""
    if name is not None:
        context.default_map = {**(context.default_map or {}), **presets.find(name).options()}


_STREAM_OPTIONS = (
    *_DEVICE_OPTIONS,
    click.option(
        "--virtual-mic",
        is_flag=False,
        flag_value=VIRTUAL_MIC,
        metavar="[NAME]",
        help="Offer the output to other programs as a microphone of this name; rtsep.",
    ),
    click.option(
        "--scene",
        is_eager=True,
        expose_value=False,
        callback=_set_preset,
        metavar="NAME",
        help="Use the model, gains and other settings of a scene: call, karaoke, "
        "practice-without-drums, or one of yours. Options beside it override it.",
    ),
    *_MODEL_OPTIONS,
    *_STEM_OPTIONS,
    click.option("-l", "--listen", metavar="SOURCE", help="Source to play; the first by default."),
    click.option(
        "-g",
        "--gain",
        multiple=True,
        metavar="SOURCE=dB",
        help="Play this source at this gain; may be repeated.",
    ),
    click.option(
        "-r",
        "--record",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write mixture.wav, one WAV per source and spectrograms.png to this folder, with a "
        "number if the files exist.",
    ),
    click.option(
        "-s", "--seconds", type=click.FloatRange(min=0.0, min_open=True), help="Time to run."
    ),
    click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the summary to this file.",
    ),
    click.option(
        "--on-late",
        type=click.Choice(["dry", "mute"]),
        default="dry",
        help="Play the mixture (dry) or silence (mute) while the worker is late; dry.",
    ),
    click.option(
        "--limit",
        "limit_db",
        type=click.FloatRange(-60.0, 0.0),
        metavar="dBFS",
        help="Limit the output to this peak level; off by default.",
    ),
    click.option(
        "--reconnect/--no-reconnect",
        default=True,
        help="Wait for a lost device and reopen it; on.",
    ),
    click.option(
        "--give-up",
        "give_up_s",
        type=click.FloatRange(min=0.0),
        metavar="S",
        help="Stop with exit code 3 after this time without the device; never by default.",
    ),
    click.option(
        "--realtime",
        type=click.Choice(["on", "off"]),
        default="on",
        callback=lambda _context, _option, value: value == "on",
        help="Request real-time scheduling and locked memory; on.",
    ),
)
"""Options of a live stream; most are named like the field of `StreamOptions` they set."""


def stream_options(command: Command) -> Command:
    """Add all options of a live stream except --device."""
    return _give(command, _STREAM_OPTIONS)


def of_stream(context: click.Context, options: Mapping[str, Any]) -> StreamOptions:
    """Convert the options of `stream_options` to those of `rtsep.realtime.builder.Stream`.

    Raises
    ------
    OptionError
        A --gain is not SOURCE=dB.
    """
    listen, gain = options["listen"], options["gain"]
    if listen is not None and context.get_parameter_source("gain") == ParameterSource.DEFAULT_MAP:
        gain = ()  # --listen overrides the gains of a scene
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
    """Load the selected bundle, or build one from learned sources.

    Raises
    ------
    LearnedError, BundleError
        A file can't be read, or the options contradict each other.
    """
    learned, noise = choice["sources"], choice["learn_noise"]
    if learned is None and noise is None:
        if choice["rest"] is not None:
            raise LearnedError("--rest is the remainder of --sources: name a learned source, too")
        return weights.chosen(choice["model"], choice["controls"], choice["keep"])
    if choice["controls"] or choice["keep"]:
        raise LearnedError(
            "--control and --keep are for trained bundles: leave them out with learned sources"
        )
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
