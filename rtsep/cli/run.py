"""``rtsep run``: the live stream, its meter and its summary."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, Unpack

import click
import numpy as np
import soundfile
from rich.console import Console

from rtsep.bundle import Bundle
from rtsep.cli import fail
from rtsep.cli.choosing import Choice, choose, model_options
from rtsep.cli.comeback import Comeback
from rtsep.cli.opening import DEFAULT, device_options, open_device
from rtsep.cli.report import Report, write_json
from rtsep.cli.watch import watch
from rtsep.engine import Engine
from rtsep.io.device import DeviceError, listing
from rtsep.io.files import AudioFileError
from rtsep.io.process import Process
from rtsep.io.virtual_mic import DEFAULT as VIRTUAL_MIC
from rtsep.io.virtual_mic import virtual_mic as opened_virtual_mic
from rtsep.live import Live
from rtsep.measure import TimedStep
from rtsep.realtime import HINT
from rtsep.recorder import Recorder
from rtsep.resample import Processor, Resampled, around
from rtsep.separator import Separator
from rtsep.spec import Float32

PICTURE_S = 600.0
"""The picture shows no more than the first ten minutes of a recording."""


class OptionError(ValueError):
    """An option that can't be, with the values that could."""


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
    wrong, if anything did.

    \b
    Examples:
      rtsep run                                   microphone to headphones, speech only
      rtsep run --device demo --record out/       a built-in mixture; needs no sound card
      rtsep run --device USB --output 4           by part of the name, by index
      rtsep run --gain speech=0 --gain noise=-20  keep a little of the noise
      rtsep run --learn-noise 10                  learn the noise for 10 s, then remove it
      rtsep run --sources me.rtsep,fan.rtsep      what `rtsep learn` made
      rtsep run --virtual-mic                     other programs hear it as microphone "rtsep"
    """  # noqa: D301
    if virtual_mic is not None:
        if output is not None:
            raise OptionError("--virtual-mic is an output itself: leave --output out")
        output = click.get_current_context().with_resource(opened_virtual_mic(virtual_mic))
    process = Process()  # it starts while the model is loaded
    click.get_current_context().call_on_close(process.close)
    bundle = choose(choice)
    gains = _gains(bundle, listen, gain)
    try:
        stream = open_device(device, output, channels, block, buffer, process)
    except DeviceError as error:
        fail(error)
        with suppress(DeviceError):  # PortAudio itself is missing, as the sentence above says
            click.echo(f"\nThe devices are:\n{listing()}", err=True)
        click.get_current_context().exit(2)
    spec, channels = bundle.spec, stream.input.width
    step = TimedStep(Separator(bundle, spec.streams(channels)))

    def make_engine(rate: int) -> Processor | Resampled:
        return around(
            lambda block: Engine(step, spec, channels, block), rate, spec.sample_rate, block
        )

    recordings: list[Recorder] = []

    def make_recorder(rate: int, latency: int) -> Recorder | None:
        """One per sample rate: those after the first go to folders in the first one's."""
        if record is None:
            return None
        folder = record / str(len(recordings) + 1) if recordings else record
        recordings.append(Recorder(folder, spec.sources, rate, channels, latency))
        return recordings[-1]

    engine = make_engine(stream.sample_rate)
    live = Live(
        stream, engine, step, gains, on_late=on_late, ask_realtime=realtime == "on", limit_db=limit
    )
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    comeback = Comeback(live, console, make_engine, make_recorder, give_up)
    report = Report(bundle, live, comeback)
    if json_path is not None:
        _make_folder(json_path)
    live.recorder = make_recorder(stream.sample_rate, engine.latency_samples)
    console.print(
        f"{bundle.metadata['name']} on {stream.name}, {stream.sample_rate} Hz; Ctrl-C stops"
    )
    console.print(report.latency_line())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's Ctrl-C
    started = time.monotonic()
    try:
        live.start()
        if realtime == "on" and not live.realtime:
            console.print(HINT)
        watch(live, report, console, seconds, comeback if reconnect else None)
    except KeyboardInterrupt:
        report.completed = True
        console.print()
    finally:
        unwritten = _stop(live)
    _finish(report, console, time.monotonic() - started, recordings, json_path)
    for problem in (live.error, comeback.unwritten, unwritten):
        if problem is not None:
            raise problem
    if not report.completed:
        fail(f"{live.device.name} has gone")
        click.get_current_context().exit(3)


def _stop(live: Live) -> AudioFileError | None:
    """Stop the stream; what kept the recording from being written is for after the summary."""
    try:
        live.stop()
    except AudioFileError as error:
        return error
    return None


def _finish(
    report: Report,
    console: Console,
    elapsed_s: float,
    recordings: list[Recorder],
    json_path: Path | None,
) -> None:
    """Say how it went, and draw it."""
    summary = report.summary(elapsed_s, sum(recorder.lost for recorder in recordings))
    console.print(report.text(summary))
    for recorder in recordings:
        for path in recorder.paths:
            console.print(f"wrote {path}", soft_wrap=True)
        if recorder.lost:
            console.print(f"the disk did not keep up: {recorder.lost} samples are not recorded")
        if recorder.error is None:
            picture = draw(recorder.paths, f"{report.bundle.metadata['name']}, live")
            if picture is not None:
                console.print(f"wrote {picture}", soft_wrap=True)
    if json_path is not None:
        write_json(json_path, summary)


def _make_folder(path: Path) -> None:
    """Make the folder of a file that is written at the end, to fail at the start."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {error.strerror}") from None


def draw(paths: list[Path], title: str) -> Path | None:
    """Draw the recorded files, mixture first, beside them; nothing if nothing was recorded."""
    from rtsep.picture import spectrograms

    if not soundfile.info(paths[0]).frames:
        return None
    rate = soundfile.info(paths[0]).samplerate
    most = round(PICTURE_S * rate)
    signals = {path.stem: soundfile.read(path, most, dtype="float32")[0] for path in paths}
    picture = paths[0].with_name(paths[0].stem.replace("mixture", "spectrograms") + ".png")
    try:
        spectrograms(picture, signals, rate, title)
    except OSError as error:
        fail(f"cannot write {picture}: {error.strerror}")
        return None
    return picture


def _gains(bundle: Bundle, listen: str | None, gain: tuple[str, ...]) -> Float32:
    """Linear gain of each source from the options."""
    sources = bundle.spec.sources

    def index(name: str) -> int:
        if name not in sources:
            raise OptionError(f"there is no source {name!r}; there are: {', '.join(sources)}")
        return sources.index(name)

    gains = np.zeros(len(sources), np.float32)
    if listen is not None or not gain:
        gains[index(listen) if listen is not None else 0] = 1.0
    for setting in gain:
        name, _, value = setting.partition("=")
        try:
            level_db = float(value)
        except ValueError:
            raise OptionError(f"--gain needs SOURCE=dB, not {setting!r}") from None
        if not level_db <= 24.0:  # NaN too
            raise OptionError(f"--gain {setting} is not a gain of at most 24 dB")
        gains[index(name)] = 10 ** (level_db / 20)
    return gains
