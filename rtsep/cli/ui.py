"""``rtsep ui``: the web panel."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rtsep.cli.options import stream_options
from rtsep.cli.panel import Panel
from rtsep.devices.open import DEFAULT
from rtsep.errors import OptionError

_FOR_BROWSERS = {"host", "port", "token", "sessions", "certificate", "key", "device", "model"}
"""Parameters that need no device."""


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, help="Port, 0: any; 7860.")
@click.option(
    "--token",
    metavar="auto|TEXT",
    help="Ask browsers for this token, auto: a new one. Needed where --host is not this machine.",
)
@click.option(
    "--sessions",
    type=click.IntRange(1, 32),
    default=4,
    help="Browsers served at the same time; 4.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Serve https with this certificate (PEM); browsers of other machines insist on it.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Its key (PEM); in the same file by default.",
)
@click.option(
    "-d",
    "--device",
    is_flag=False,
    flag_value=DEFAULT,
    metavar="[IN]",
    help="Separate what this machine's sound card hears, as `rtsep run` does; browsers show and "
    "change it. An index or part of a name, 'demo', or a file; the default without a value.",
)
@stream_options
@click.pass_context
def ui(
    context: click.Context,
    /,
    host: str,
    port: int,
    token: str | None,
    sessions: int,
    certificate: Path | None,
    key: Path | None,
    device: str | None,
    **options: Any,
) -> None:
    """Separate in the browser, or look at this machine's own stream there.

    Without --device, the browser is microphone, loudspeaker and controls: sound goes from the page
    to this program and back, nowhere else. With it, sound stays in this machine's sound card, and
    the page has the controls and the spectrograms; all options of `rtsep run` are for that. Runs
    until Ctrl-C.

    \b
    Examples:
      rtsep ui                               open the printed address in a browser
      rtsep ui --device                      the sound card's stream, shown in the browser
      rtsep ui --device --scene call --limit -6
      rtsep ui --model music --port 8000
      rtsep ui --host 0.0.0.0 --token auto --certificate cert.pem --key key.pem
                                             for a phone on the same network
    """  # noqa: D301
    panel = Panel(host, port, token, sessions, certificate, key)
    context.call_on_close(panel.close)
    if device is None:
        _check_for_browsers(context)
        with suppress(KeyboardInterrupt):  # Windows
            panel.serve(options["model"])
        return
    from rtsep.cli.run import perform

    perform(context, device, options, panel)


def _check_for_browsers(context: click.Context) -> None:
    """Refuse options that are for a device of this machine.

    Raises
    ------
    OptionError
        There is one.
    """
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE
        if given and option.name not in _FOR_BROWSERS:
            off = context.params.get(str(option.name)) is False and option.secondary_opts
            name = max(off or option.opts, key=len)
            raise OptionError(f"{name} is for --device: browsers have their own sound")
