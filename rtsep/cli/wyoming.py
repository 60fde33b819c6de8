"""``rtsep wyoming``: a microphone of clean speech for Home Assistant's voice satellites."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import click

from rtsep.devices.open import DEFAULT
from rtsep.errors import SoundError
from rtsep.stream import live


@click.command()
@click.option(
    "--uri",
    default="tcp://127.0.0.1:10600",
    help="Address to serve, tcp://HOST:PORT or unix://PATH; tcp://127.0.0.1:10600.",
)
@click.option(
    "-d",
    "--device",
    default=DEFAULT,
    metavar="IN",
    help="Input: an index or part of a name (see `rtsep devices`), 'demo', or an audio file; by "
    "default the system's microphone.",
)
@click.option("-m", "--model", help="Shipped model's name, or a bundle's path.")
@click.option("--source", help="Source that clients hear; the first by default.")
def wyoming(uri: str, device: str, model: str | None, source: str | None) -> None:
    """Serve a microphone to Wyoming clients, which hear one source of it.

    Clients get 16 kHz, 16 bits, one channel. Nothing is played on this machine. Runs until Ctrl-C
    or the end of a file. The protocol has no password: whoever can connect can listen.

    \b
    Examples:
      rtsep wyoming                               the microphone, for this machine
      rtsep wyoming --uri tcp://0.0.0.0:10600     for satellites on the network
      rtsep wyoming --device demo
    """  # noqa: D301
    from rtsep.integrations.wyoming import Microphone, serve

    chosen = None if model is None else Path(model) if Path(model).exists() else model
    with live(device, chosen, gains={}) as stream:
        kept = stream.sources[0] if source is None else source
        if kept not in stream.sources:
            there = ", ".join(stream.sources)
            raise SoundError(f"the model has no source {kept!r}; there are: {there}")
        told = f"{kept} of {stream.model} at {uri}; Ctrl-C stops"
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(Microphone(stream, kept), uri, lambda: click.echo(told)))
