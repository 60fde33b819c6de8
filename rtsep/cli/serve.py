"""``rtsep serve``: separate the streams of other machines."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from rtsep.cli import fail
from rtsep.cli.options import stem_options, taken
from rtsep.cli.panel import printed
from rtsep.errors import ExtraError, OptionError
from rtsep.runtime.engine import StemOptions


def _range(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
    """Read MIN:MAX."""
    if text is None:
        return None
    low, _, high = text.partition(":")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high)):
        raise OptionError(f"--replicas needs MIN:MAX, such as 1:4, not {text!r}")
    return int(low), int(high)


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7870, help="Port; 0 is any free one; 7870."
)
@click.option(
    "--token",
    metavar="auto|TEXT",
    help="Token that clients need; auto makes a new one. Required with another --host.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Serve https with this certificate (PEM).",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Key of the certificate (PEM); by default in the same file.",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    help="Shipped model's name, or a bundle's path; may be repeated, and each stream chooses one.",
)
@click.option(
    "--streams-per-replica",
    "places",
    type=click.IntRange(1, 1024),
    default=16,
    metavar="N",
    help="Largest number of streams of a process; 16.",
)
@click.option(
    "--replicas",
    metavar="MIN:MAX",
    callback=_range,
    help="Number of processes, as the streams need; Ray runs them, and each takes one core. "
    "Without --replicas and --address, this process is the only one.",
)
@click.option(
    "--address",
    metavar="auto|HOST:PORT",
    help="Ray cluster whose machines run the replicas; auto is that of this machine.",
)
@stem_options
def serve(
    host: str,
    port: int,
    token: str | None,
    certificate: Path | None,
    key: Path | None,
    models: tuple[str, ...],
    places: int,
    replicas: tuple[int, int] | None,
    address: str | None,
    **options: Any,
) -> None:
    """Separate streams that other programs send, with `rtsep.remote` or over WebSockets.

    All streams share the calls of a model. Serves /health and, for Prometheus, /metrics. Ctrl-C or
    SIGTERM ends it, after what has arrived is separated.

    \b
    Examples:
      rtsep serve                            for this machine
      rtsep serve --model speech --model music --streams-per-replica 8
      rtsep serve --host 0.0.0.0 --token auto --certificate cert.pem --key key.pem
      rtsep serve --address auto --replicas 2:64 --host 0.0.0.0 --token auto
    """  # noqa: D301
    clustered = replicas is not None or address is not None
    try:
        from rtsep.serve.host import Host
        from rtsep.serve.server import run
        from rtsep.ui.server import listen, tls_context

        if clustered:
            from rtsep.serve import cluster
            from rtsep.serve.actor import Plan
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("websockets", "prometheus_client", "ray"):
            raise
        raise ExtraError(
            f"rtsep serve needs {error.name}: install it with pip install 'rtsep[serve]'"
        ) from None
    from rtsep.serve.keeper import Memory
    from rtsep.ui.guard import Guard, token_for

    secret, stems = token_for(host, token), taken(StemOptions, options)
    tls = None if certificate is None else tls_context(certificate, key or certificate)
    with listen(host, port) as listener, suppress(KeyboardInterrupt):  # Windows

        def say(names: list[str], most: int) -> None:
            address = printed(host, listener.getsockname()[1], secret, tls is not None)
            click.echo(f"{', '.join(names)}, up to {most} streams: {address}")
            click.echo("Ctrl-C stops")

        if clustered:
            plan = Plan(
                *(host, port, secret, certificate, key, models or (None,), places),
                *(replicas or (1, 1), stems),
            )
            most = plan.replicas[1] * places
            where = "local" if address is None else address
            cluster.run(plan, where, listener, lambda names: say(names, most), fail)
        else:
            guard, memory = Guard(host, secret), Memory()
            served = Host(guard, models or (None,), places, memory, fail, stems)
            run(served, listener, tls, lambda: say(served.models(), places))
