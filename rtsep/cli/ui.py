"""``rtsep ui``: separate or control a stream in the browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rtsep.cli.options import stream_options, taken
from rtsep.cli.panel import Panel
from rtsep.devices.open import DEFAULT
from rtsep.errors import OptionError, ServerError
from rtsep.runtime.engine import StemOptions

_FOR_BROWSERS = {
    *("host", "port", "token", "sessions", "certificate", "key", "device", "model"),
    *("floor_db", "full_band"),
}
"""Parameters that are valid without --device."""


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7860, help="Port; 0 is any free one; 7860."
)
@click.option(
    "--token",
    metavar="auto|TEXT",
    help="Token that browsers need; auto makes a new one. Required with another --host.",
)
@click.option(
    "--sessions",
    type=click.IntRange(1, 32),
    default=4,
    help="Number of simultaneous browsers; 4.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Serve https with this certificate (PEM); needed by browsers of other machines.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Key of the certificate (PEM); by default in the same file.",
)
@click.option(
    "-d",
    "--device",
    is_flag=False,
    flag_value=DEFAULT,
    metavar="[IN]",
    help="Separate the sound of this machine's sound card, as `rtsep run`; browsers show and "
    "control it. An index or part of a name, 'demo', or a file; without a value the default.",
)
@click.option(
    "--static",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a page to this folder that separates inside the browser, for any static host; no "
    "server runs.",
)
@click.option(
    "--runtime",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder of the npm package onnxruntime-web for --static; by default npm fetches it once.",
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
    static: Path | None,
    runtime: Path | None,
    **options: Any,
) -> None:
    """Separate a browser's sound, or control this machine's stream in the browser.

    Without --device, the page sends the browser's microphone to this program, plays the result and
    has the controls; the sound goes nowhere else. With --device, input and output are this
    machine's sound card, and the page has controls and spectrograms; the options of `rtsep run` are
    for this case. Runs until Ctrl-C.

    \b
    Examples:
      rtsep ui                               open the printed address in a browser
      rtsep ui --device                      the sound card's stream, shown in the browser
      rtsep ui --device --scene call --limit -6
      rtsep ui --model music --port 8000
      rtsep ui --static page/                a page that needs no server, for any web host
      rtsep ui --host 0.0.0.0 --token auto --certificate cert.pem --key key.pem
                                             for a phone on the same network
    """  # noqa: D301
    if static is not None:
        _check_for_page(context)
        _write_page(static, options["model"], runtime)
        return
    if runtime is not None:
        raise OptionError("--runtime needs --static")
    panel = Panel(host, port, token, sessions, certificate, key)
    context.call_on_close(panel.close)
    if device is None:
        _check_for_browsers(context)
        with suppress(KeyboardInterrupt):  # Windows
            panel.serve(options["model"], taken(StemOptions, options))
        return
    from rtsep.cli.run import perform

    perform(context, device, options, panel)


def _write_page(folder: Path, model: str | None, runtime: Path | None) -> None:
    """Write the page that separates inside the browser."""
    from rtsep import weights
    from rtsep.portable import web
    from rtsep.portable.check import check
    from rtsep.portable.graph import build

    bundle = weights.find(model)
    portable = build(bundle)
    check(portable, bundle)
    files = web.runtime(runtime)
    name, licence = (bundle.metadata[key] for key in ("name", "licence"))
    try:
        size = web.write(portable, name, licence, files, folder)
    except OSError as error:
        raise ServerError(f"{folder} can't be written: {error.strerror}") from None
    click.echo(f"{folder}: {size / 1e6:.1f} MB; put it on an https host, or try it here with")
    click.echo(f"python -m http.server -d {folder} --bind 127.0.0.1 8000")


def _check_for_page(context: click.Context) -> None:
    """Check that no option is given that a page without a server does not have."""
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE
        if given and option.name not in ("static", "runtime", "model"):
            name = max(option.opts, key=len)
            raise OptionError(f"{name} can't be used with --static, which runs no server")


def _check_for_browsers(context: click.Context) -> None:
    """Check that no option is given that needs --device.

    Raises
    ------
    OptionError
        There is such an option.
    """
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE
        if given and option.name not in _FOR_BROWSERS:
            off = context.params.get(str(option.name)) is False and option.secondary_opts
            name = max(off or option.opts, key=len)
            raise OptionError(f"{name} needs --device: browsers use their own sound")
