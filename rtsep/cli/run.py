"""``rtsep run``: the live stream, its meter and its summary."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile
from rich.console import Console
from rich.live import Live as Screen
from rich.text import Text

from rtsep import weights
from rtsep.bundle import Bundle
from rtsep.cli import fail
from rtsep.cli.opening import DEFAULT, open_device
from rtsep.cli.report import Report
from rtsep.engine import Engine
from rtsep.io.device import DeviceError, listing
from rtsep.io.files import AudioFileError
from rtsep.io.virtual_mic import DEFAULT as VIRTUAL_MIC
from rtsep.io.virtual_mic import virtual_mic as opened_virtual_mic
from rtsep.live import Live
from rtsep.measure import TimedStep
from rtsep.recorder import Recorder
from rtsep.resample import around
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
@click.option("-o", "--output", metavar="OUT", help="Output device, like --device.")
@click.option(
    "--virtual-mic",
    is_flag=False,
    flag_value=VIRTUAL_MIC,
    metavar="[NAME]",
    help="Play into a microphone of this name, which other programs can choose; rtsep.",
)
@click.option("-m", "--model", help="Shipped model's name, or a bundle's path.")
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
@click.option("--channels", type=click.IntRange(1, 64), default=1, help="Input channels; 1.")
@click.option(
    "--block", type=click.IntRange(16, 8192), default=128, help="Samples per device block; 128."
)
@click.option(
    "--buffer",
    type=click.FloatRange(0.0, 500.0),
    default=10.0,
    metavar="MS",
    help="Time the worker may take for a block, part of the latency; 10.",
)
def run(
    device: str,
    output: str | None,
    virtual_mic: str | None,
    model: str | None,
    listen: str | None,
    gain: tuple[str, ...],
    record: Path | None,
    seconds: float | None,
    json_path: Path | None,
    channels: int,
    block: int,
    buffer: float,
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
      rtsep run --virtual-mic                     other programs hear it as microphone "rtsep"
    """  # noqa: D301
    if virtual_mic is not None:
        if output is not None:
            raise OptionError("--virtual-mic is an output itself: leave --output out")
        output = click.get_current_context().with_resource(opened_virtual_mic(virtual_mic))
    bundle = weights.find(model)
    gains = _gains(bundle, listen, gain)
    try:
        stream = open_device(device, output, channels, block, buffer)
    except DeviceError as error:
        fail(error)
        with suppress(DeviceError):  # PortAudio itself is missing, as the sentence above says
            click.echo(f"\nThe devices are:\n{listing()}", err=True)
        click.get_current_context().exit(2)
    rate, spec, channels = stream.sample_rate, bundle.spec, stream.input.width
    step = TimedStep(Separator(bundle, spec.streams(channels)))
    engine = around(
        lambda block: Engine(step, spec, channels, block), rate, spec.sample_rate, block
    )
    live = Live(stream, engine, step, gains)
    report = Report(bundle, live)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if json_path is not None:
        _make_folder(json_path)
    if record is not None:
        live.recorder = Recorder(record, spec.sources, rate, channels, engine.latency_samples)
    console.print(f"{bundle.metadata['name']} on {stream.name}, {rate} Hz; Ctrl-C stops")
    console.print(report.latency_line())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's Ctrl-C
    started = time.monotonic()
    try:
        live.start()
        _watch(live, report, console, seconds)
    except KeyboardInterrupt:
        report.completed = True
        console.print()
    finally:
        unwritten = _stop(live)
    _finish(report, console, time.monotonic() - started, json_path)
    if unwritten is not None:
        raise unwritten


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
    json_path: Path | None,
) -> None:
    """Say how it went, and draw it."""
    recorder = report.live.recorder
    summary = report.summary(elapsed_s)
    console.print(report.text(summary))
    if recorder is not None:
        for path in recorder.paths:
            console.print(f"wrote {path}", soft_wrap=True)
        if recorder.lost:
            console.print(f"the disk did not keep up: {recorder.lost} samples are not recorded")
        if recorder.error is None:
            picture = draw(recorder.paths, f"{report.bundle.metadata['name']}, live")
            if picture is not None:
                console.print(f"wrote {picture}", soft_wrap=True)
    if json_path is not None:
        part = json_path.with_name(json_path.name + ".part")
        try:
            part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            part.replace(json_path)
        except OSError as error:
            raise AudioFileError(f"cannot write {json_path}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    if report.live.error is not None:
        raise report.live.error
    if not summary["completed"]:
        raise DeviceError(f"{report.live.device.name} stopped by itself")


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


def _watch(live: Live, report: Report, console: Console, seconds: float | None) -> None:
    """Show the meter until it is time to stop."""
    started = shown = time.monotonic()
    drained: float | None = None
    with _screen(console) as show:
        while live.running:
            now = time.monotonic()
            if seconds is not None and now - started >= seconds:
                report.completed = True
                return
            if drained is None and live.device.finished:
                drained = now + report.latency_ms() / 1000 + 0.1  # the end of the file is heard
            if drained is not None and now >= drained:
                report.completed = True
                return
            if now - shown >= (0.1 if console.is_terminal else 1.0):
                shown = now
                show(report.status(now - started))
            time.sleep(0.02)


@contextmanager
def _screen(console: Console) -> Iterator[Any]:
    """Give a function that shows one status line: in place on a terminal, else below the last."""
    if console.is_terminal:
        with Screen(console=console, refresh_per_second=10, transient=True) as screen:
            yield lambda line: screen.update(Text(line, no_wrap=True, overflow="ellipsis"))
    else:
        yield console.print
