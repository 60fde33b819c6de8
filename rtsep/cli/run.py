"""``rtsep run``: the live stream, its meter and its summary."""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Literal, Unpack

import click
import numpy as np
from click.core import ParameterSource
from rich.console import Console

from rtsep import weights
from rtsep.cli import fail, presets
from rtsep.cli.options import Choice, choose, device_options, model_options
from rtsep.cli.panel import Panel
from rtsep.cli.presets import Preset
from rtsep.cli.report import Report, finish, make_folder
from rtsep.cli.terminal.bindings import Desk
from rtsep.cli.terminal.loop import Notices, watch
from rtsep.devices.device import Device, listing
from rtsep.devices.open import DEFAULT, inputs, open_device, reopen
from rtsep.devices.portaudio.client import Process
from rtsep.devices.virtual_mic import DEFAULT as VIRTUAL_MIC
from rtsep.devices.virtual_mic import virtual_mic as opened_virtual_mic
from rtsep.dsp.mixer import level_db
from rtsep.errors import AudioFileError, DeviceError, OptionError, PresetError
from rtsep.realtime.control import Control
from rtsep.realtime.reconnect import Comeback
from rtsep.realtime.recorder import Takes
from rtsep.realtime.scheduling import HINT
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.pipeline import LoadedModel
from rtsep.spec import Float32
from rtsep.stream import linear_gains

SAVED = "saved"
"""Name of the preset that the running view writes."""


def _set_preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Make a preset's options the defaults of those that are not given."""
    if name is not None:
        context.default_map = {**(context.default_map or {}), **presets.find(name).options()}


@click.command()
@click.option(
    "-d",
    "--device",
    is_flag=False,
    flag_value=DEFAULT,
    default=DEFAULT,
    metavar="[IN]",
    help="Input: an index or part of a name (see `rtsep devices`), 'demo', or an audio file that "
    "is played at real-time pace. The system's default without a value.",
)
@device_options
@click.option(
    "--virtual-mic",
    is_flag=False,
    flag_value=VIRTUAL_MIC,
    metavar="[NAME]",
    help="Play into a microphone of this name, which other programs can choose; rtsep.",
)
@click.option(
    "--scene",
    is_eager=True,
    expose_value=False,
    callback=_set_preset,
    metavar="NAME",
    help="Take model, gains and the like from a scene: call, karaoke, practice-without-drums, or "
    "one of yours; options beside it win.",
)
@model_options
@click.option("-l", "--listen", metavar="SOURCE", help="Source to hear; the first by default.")
@click.option(
    "-g",
    "--gain",
    multiple=True,
    metavar="SOURCE=dB",
    help="Hear this source at this gain; may be repeated.",
)
@click.option(
    "-r",
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write mixture.wav, one WAV per source and spectrograms.png there; with a number where "
    "there are such files.",
)
@click.option("-s", "--seconds", type=click.FloatRange(min=0.0, min_open=True), help="Then stop.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the summary there.",
)
@click.option(
    "--on-late",
    type=click.Choice(["dry", "mute"]),
    default="dry",
    help="Hear the mixture (dry) or silence (mute) while the worker is late; dry.",
)
@click.option(
    "--limit",
    type=click.FloatRange(-60.0, 0.0),
    metavar="dBFS",
    help="Play nothing louder than this; off by default.",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=True,
    help="Wait for a device that goes away, and go on with it; on.",
)
@click.option(
    "--give-up",
    type=click.FloatRange(min=0.0),
    metavar="S",
    help="End after so long without the device, with exit code 3; never by default.",
)
@click.option(
    "--realtime",
    type=click.Choice(["on", "off"]),
    default="on",
    help="Ask the system for real-time scheduling and locked memory; on.",
)
def run(
    device: str,
    output: str | None,
    virtual_mic: str | None,
    listen: str | None,
    gain: tuple[str, ...],
    record: Path | None,
    seconds: float | None,
    json_path: Path | None,
    channels: int,
    block: int,
    buffer: float,
    on_late: Literal["dry", "mute"],
    limit: float | None,
    reconnect: bool,
    give_up: float | None,
    realtime: Literal["on", "off"],
    **choice: Unpack[Choice],
) -> None:
    """Separate a live microphone and hear one source of it.

    Runs until Ctrl-C, the end of a file, or --seconds; then says how late it was and what went
    wrong, if anything did. In a terminal, keys change gains, model, recording and device meanwhile:
    ? lists them.

    \b
    Examples:
      rtsep run                                   microphone to headphones, speech only
      rtsep run --device demo --record out/       a built-in mixture; needs no sound card
      rtsep run --device USB --output 4           by part of the name, by index
      rtsep run --gain speech=0 --gain noise=-20  keep a little of the noise
      rtsep run --scene karaoke                   the band without its singer
      rtsep run --learn-noise 10                  learn the noise for 10 s, then remove it
      rtsep run --sources me.rtsep,fan.rtsep      what `rtsep learn` made
      rtsep run --virtual-mic                     other programs hear it as microphone "rtsep"
    """  # noqa: D301
    context = click.get_current_context()
    if virtual_mic is not None:
        if output is not None:
            raise OptionError("--virtual-mic is an output itself: leave --output out")
        output = context.with_resource(opened_virtual_mic(virtual_mic))
    process = Process()  # it starts while the model is loaded
    context.call_on_close(process.close)
    bundle = choose(choice)
    from_preset = context.get_parameter_source("gain") == ParameterSource.DEFAULT_MAP
    gains = _gains(bundle, listen, () if listen is not None and from_preset else gain)
    try:
        stream = open_device(device, output, channels, block, buffer, process)
    except DeviceError as error:
        fail(error)
        with suppress(DeviceError):  # PortAudio itself is missing, as the sentence above says
            click.echo(f"\nThe devices are:\n{listing()}", err=True)
        context.exit(2)
    loaded = LoadedModel(bundle, stream.input.width)
    try:
        live = StreamWorker(
            stream,
            loaded.engine(stream.sample_rate, block),
            loaded.step,
            gains,
            on_late=on_late,
            ask_realtime=realtime == "on",
            limit_db=limit,
        )
    except DeviceError as error:  # the model does not go with it
        raise DeviceError(f"{bundle.path or loaded.name}: {error}") from None
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    say = Notices(console)
    takes = Takes(record or Path(time.strftime("rtsep-%Y%m%d-%H%M%S")))

    def another(name: str) -> Device:
        return reopen(name, output, channels, block, buffer)

    comeback = Comeback(
        live,
        say,
        lambda rate: control.loaded.engine(rate, block),
        lambda rate, latency: takes.begin(
            control.loaded.bundle.spec.sources, rate, control.loaded.channels, latency
        ),
        give_up,
    )
    recover = comeback.wait if reconnect else None
    control = Control(live, loaded, takes, say, another, inputs, recover)
    report = Report(control, comeback)
    if json_path is not None:
        make_folder(json_path)
    if record is not None:
        spec, latency = bundle.spec, live.engine.latency_samples
        live.recorder = takes.begin(spec.sources, stream.sample_rate, loaded.channels, latency)
    console.print(f"{loaded.name} on {stream.name}, {stream.sample_rate} Hz; Ctrl-C stops")
    console.print(report.latency_line())

    def save() -> str:
        return _save(control, limit, on_late, block, buffer)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's Ctrl-C
    started = time.monotonic()
    panel = context.find_object(Panel)
    try:
        live.start()
        if realtime == "on" and not live.realtime:
            console.print(HINT)
        control.start()
        with nullcontext() if panel is None else panel.showing(control, say.last):
            desk = None if panel else Desk(control, save, say)
            watch(report, console, say, seconds, desk)
    except KeyboardInterrupt:
        report.completed = True
        console.print()
    finally:
        control.close()
        unwritten = _stop(live)
    finish(report, console, time.monotonic() - started, takes, json_path)
    for problem in (live.error, control.error, comeback.unwritten, control.unwritten, unwritten):
        if problem is not None:
            raise problem
    if not report.completed:
        fail(f"{live.device.name} has gone")
        context.exit(3)


def _save(control: Control, limit: float | None, on_late: str, block: int, buffer: float) -> str:
    """Save what is heard now as a preset; say what was written, or why not."""
    mixer, bundle = control.live.mixer, control.loaded.bundle
    audible = ~mixer.muted & (mixer.soloed | (not mixer.soloed.any()))
    levels = [round(level_db(float(gain)), 2) for gain in np.where(audible, mixer.gains, 0.0)]
    if bundle.path is None:
        return f"{bundle.metadata['name']} is in no file: a scene needs a model of a name or a path"
    shipped = bundle.path.parent == weights.card(bundle.path.stem).parent
    preset = Preset(
        model=bundle.path.stem if shipped else str(bundle.path.resolve()),
        gains=dict(zip(control.live.engine.spec.sources, levels, strict=True)),
        limit=limit,
        on_late=on_late,
        block=block,
        buffer=buffer,
    )
    try:
        return f"wrote {preset.save(SAVED)}: rtsep run --scene {SAVED}"
    except PresetError as error:
        return str(error)


def _stop(live: StreamWorker) -> AudioFileError | None:
    """Stop the stream; what kept the recording from being written is for after the summary."""
    try:
        live.stop()
    except AudioFileError as error:
        return error
    return None


def _gains(bundle: Bundle, listen: str | None, gain: tuple[str, ...]) -> Float32:
    """Linear gain of each source from the options."""
    sources = bundle.spec.sources
    levels_db: dict[str, float] = {}
    if listen is not None or not gain:
        levels_db[sources[0] if listen is None else listen] = 0.0
    for setting in gain:
        name, _, value = setting.partition("=")
        try:
            levels_db[name] = float(value)
        except ValueError:
            raise OptionError(f"--gain needs SOURCE=dB, not {setting!r}") from None
    return linear_gains(sources, levels_db)
