"""``rtsep run``: run a live stream with a view in the terminal and a summary."""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, cast

import click
import numpy as np
from rich.console import Console

from rtsep import weights
from rtsep.cli import fail
from rtsep.cli.options import Choice, choose, of_stream, stream_options, taken
from rtsep.cli.panel import Panel
from rtsep.cli.presets import Preset
from rtsep.cli.report import Report, finish, make_folder
from rtsep.cli.terminal.bindings import Desk
from rtsep.cli.terminal.loop import Notices, watch
from rtsep.devices.open import DEFAULT, DeviceOptions
from rtsep.devices.portaudio.library import listing
from rtsep.devices.virtual_mic import virtual_mic
from rtsep.dsp.mixer import level_db
from rtsep.errors import DeviceError, OptionError, PresetError
from rtsep.realtime.builder import Stream, open_stream
from rtsep.realtime.scheduling import HINT

SAVED = "saved"
"""Name of the preset that the key w saves."""


@click.command()
@click.option(
    "-d",
    "--device",
    is_flag=False,
    flag_value=DEFAULT,
    default=DEFAULT,
    metavar="[IN]",
    help="Input: an index or part of a name (see `rtsep devices`), 'demo', 'system' for what other "
    "programs play, or an audio file that is played at real-time pace. Without a value, the "
    "system's default.",
)
@stream_options
@click.pass_context
def run(context: click.Context, /, device: str, **options: Any) -> None:
    """Separate a live microphone and play one or more of its sources.

    Runs until Ctrl-C, the end of a file, or --seconds, then prints a summary of latency, load and
    faults. In a terminal, keys change gains, model, recording and device; ? lists them.

    \b
    Examples:
      rtsep run                                   microphone to headphones, speech only
      rtsep run --device demo --record out/       a built-in mixture; needs no sound card
      rtsep run --device USB --output 4           by part of the name, by index
      rtsep run --gain speech=0 --gain noise=-20  keep a little of the noise
      rtsep run --scene karaoke                   the music without the vocals
      rtsep run --learn-noise 10                  learn the noise for 10 s, then remove it
      rtsep run --sources me.rtsep,fan.rtsep      sources of `rtsep learn`
      rtsep run --virtual-mic                     a microphone "rtsep" for other programs
      rtsep run --device system --scene karaoke   what other programs play, without the vocals
    """  # noqa: D301
    perform(context, device, options)


def perform(
    context: click.Context, device: str, options: dict[str, Any], panel: Panel | None = None
) -> None:
    """Run a stream until its end; print errors and the summary.

    Parameters
    ----------
    context
        Context of the command.
    device
        The input, see `rtsep.devices.open.open_device`.
    options
        Options of `rtsep.cli.options.stream_options`.
    panel
        Web panel that shows the stream, in place of the view in the terminal.
    """
    seconds, json_path = options["seconds"], options["json_path"]
    chosen, where = of_stream(context, options), taken(DeviceOptions, options)
    if json_path is not None:
        make_folder(json_path)
    if options["virtual_mic"] is not None:
        if where.output is not None:
            raise OptionError("--virtual-mic is an output itself: leave --output out")
        output = context.with_resource(virtual_mic(options["virtual_mic"]))
        where = replace(where, output=output)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    say = Notices(console)
    try:
        stream = open_stream(
            device, lambda: choose(cast(Choice, options)), where, chosen, notices=say
        )
    except DeviceError as error:
        fail(error)
        with suppress(DeviceError):  # without PortAudio, which the message above reports
            click.echo(f"\nThe devices are:\n{listing()}", err=True)
        context.exit(2)
    report = Report(stream)
    name, opened = stream.control.loaded.name, stream.worker.device
    console.print(f"{name} on {opened.name}, {opened.sample_rate} Hz; Ctrl-C stops")
    console.print("\n".join(filter(None, (report.latency_line(), report.blocks_line()))))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # service managers send SIGTERM
    started = time.monotonic()
    try:
        stream.start()
        if chosen.realtime and not stream.worker.realtime:
            console.print(HINT)
        with nullcontext() if panel is None else panel.showing(stream):
            desk = None if panel else Desk(stream.control, lambda: _save(stream, where), say)
            watch(report, console, say, seconds, desk)
    except KeyboardInterrupt:
        report.completed = True
        console.print()
    finally:
        stream.stop()
    finish(report, console, time.monotonic() - started, json_path)
    stream.raise_problem()
    if not report.completed:
        fail(f"{stream.worker.device.name} has gone")
        context.exit(3)


def _save(stream: Stream, where: DeviceOptions) -> str:
    """Save the current settings as a preset; return a message about the result."""
    mixer, loaded = stream.worker.mixer, stream.control.loaded
    bundle = loaded.bundle
    levels = [round(level_db(float(g)), 2) for g in np.where(mixer.heard, mixer.gains, 0.0)]
    if bundle.path is None:
        return f"{bundle.metadata['name']} has no file: a scene needs a shipped model or a path"
    shipped = bundle.path.parent in (weights.card("").parent, weights.folder())
    preset = Preset(
        model=bundle.path.stem if shipped else str(bundle.path.resolve()),
        gains=dict(zip(bundle.spec.sources, levels, strict=True)),
        limit=stream.options.limit_db,
        on_late=stream.options.on_late,
        block=where.block,
        buffer=where.buffer_ms,
        controls={
            name: ",".join(f"{value:.7g}" for value in values)
            for name, values in loaded.controls.items()
        },
    )
    try:
        return f"wrote {preset.save(SAVED)}: rtsep run --scene {SAVED}"
    except PresetError as error:
        return str(error)
