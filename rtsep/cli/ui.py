"""``rtsep ui``: the web panel."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import click

from rtsep.cli import fail
from rtsep.ui.guard import Guard, is_loopback, token_for


class ExtraError(ValueError):
    """What the panel needs is not installed."""


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, help="Port, 0: any; 7860.")
@click.option(
    "--token",
    metavar="auto|TEXT",
    help="Ask browsers for this token, auto: a new one. Needed where --host is not this machine.",
)
@click.option("-m", "--model", help="Shipped model's name, or a bundle's path.")
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
def ui(
    host: str,
    port: int,
    token: str | None,
    model: str | None,
    sessions: int,
    certificate: Path | None,
    key: Path | None,
) -> None:
    """Separate in the browser: it is microphone, loudspeaker and controls.

    Runs until Ctrl-C. Sound goes from the page to this program and back, nowhere else.

    \b
    Examples:
      rtsep ui                               open the printed address in a browser
      rtsep ui --model music --port 8000
      rtsep ui --host 0.0.0.0 --token auto --certificate cert.pem --key key.pem
                                             for a phone on the same network
    """  # noqa: D301
    secret = token_for(host, token)
    try:
        from rtsep.ui.chain import Pool
        from rtsep.ui.server import Server, listen, tls_context
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("websockets"):
            raise
        raise ExtraError(
            "rtsep ui needs websockets: install it with pip install 'rtsep[ui]'"
        ) from None
    tls = None if certificate is None else tls_context(certificate, key or certificate)
    with listen(host, port) as listener:
        bound = listener.getsockname()[1]
        pool = Pool(model, spare=sessions)

        def say() -> None:
            scheme = "http" if tls is None else "https"
            fragment = "" if secret is None else f"#token={secret}"
            click.echo(f"{pool.default}: open {scheme}://{_named(host)}:{bound}/{fragment}")
            if tls is None and not is_loopback(host):
                click.echo(
                    "browsers give the microphone to https pages only: add --certificate and --key"
                )
            click.echo("Ctrl-C stops")

        with suppress(KeyboardInterrupt):  # Windows
            Server(Guard(host, secret), pool, sessions, fail).run(listener, tls, say)


def _named(host: str) -> str:
    """Put a host as others write it in an address; this machine's own for "any"."""
    if host in ("0.0.0.0", "::"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # sends nothing; it tells the way out
                host = str(probe.getsockname()[0])
            except OSError:
                host = socket.gethostname()
    return f"[{host}]" if ":" in host else host
