"""``rtsep bench``: measure the models on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rtsep import weights
from rtsep.benchmark import page, trials
from rtsep.benchmark.machine import machine
from rtsep.benchmark.result import measure, measure_streams
from rtsep.benchmark.roofline import core_bandwidth, core_peak
from rtsep.cli.report import write_json
from rtsep.errors import AudioFileError, BenchError
from rtsep.files.atomic import replacing
from rtsep.realtime.scheduling import undisturbed

_CACHE_BYTES = 1 << 18


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("-s", "--seconds", type=click.FloatRange(0.1, 3600), default=10.0,
              help="Duration of each paced run; 10.", show_default=False)  # fmt: skip
@click.option("-b", "--block", multiple=True, type=click.IntRange(1, 65536), metavar="SAMPLES",
              help="Samples per block at the model's rate; may be repeated. By default one call of "
              "the model.")  # fmt: skip
@click.option("-t", "--threads", multiple=True, type=click.IntRange(1, 64), metavar="N",
              help="Threads of the model; may be repeated; 1.")  # fmt: skip
@click.option("--streams", "limit", type=click.IntRange(1, 4096), metavar="N",
              help="Find how many live streams, up to N, one core carries.")  # fmt: skip
@click.option("-d", "--device", metavar="IN",
              help="Also run each model live on this device, see `rtsep devices`.")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="Write all figures to this file.")  # fmt: skip
@click.option("--html", "html_path", type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="Write a report with plots to this file.")  # fmt: skip
def bench(
    models: tuple[str, ...],
    seconds: float,
    block: tuple[int, ...],
    threads: tuple[int, ...],
    limit: int | None,
    device: str | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Measure MODELs: shipped names or paths of bundles; by default all shipped models.

    Measures latency, declared by its terms and found in the output; the time of a block, back to
    back and at real-time pace, the latter interleaved with an empty loop; start, memory, and the
    share of the core's peak.

    \b
    Examples:
      rtsep bench speech
      rtsep bench --html report.html --json report.json
      rtsep bench speech --block 64 --block 128 --threads 1 --threads 2
      rtsep bench speech --streams 64        number of streams on one core
      rtsep bench speech --device USB        live, with xruns and misses
    """  # noqa: D301
    names = models or tuple(weights.names())
    bundles = {name: weights.find(name) for name in names}
    console = Console(highlight=False, markup=False, emoji=False)
    settings = [(n, b, t) for n in bundles for t in threads or (1,) for b in block or (0,)]
    roof = {
        "gflops": round(core_peak() / 1e9, 1),
        "memory_gb_per_s": round(core_bandwidth() / 1e9, 1),
        "cache_gb_per_s": round(core_bandwidth(_CACHE_BYTES) / 1e9, 1),
    }
    document: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "settings": {"seconds": seconds},
        "roof": roof,
        "results": [],
    }
    # Without the progress thread, which would disturb the measurement.
    bar = Progress(console=Console(stderr=True), transient=True, auto_refresh=False)
    with undisturbed(ask=False), bar as progress:
        task = progress.add_task("", total=len(settings))
        for name, samples, count in settings:
            label = bundles[name].metadata["name"] + (f", block {samples}" if block else "")
            label += f", {count} threads" if threads else ""
            progress.update(task, description=label, refresh=True)
            # First, since a device that is not there need not be waited for.
            live = {} if device is None else {"live": _live(name, device, seconds)}
            result = {"label": label, **measure(bundles[name], samples, count, seconds, roof)}
            result |= live
            result["start"] = trials.start(name)
            if limit is not None and count == 1 and samples in (0, *block[:1]):
                result["streams"] = measure_streams(bundles[name], limit)
            document["results"].append(result)
            progress.advance(task)
    _print(console, document)
    if json_path is not None:
        write_json(json_path, document)
    if html_path is not None:
        try:
            with replacing(html_path) as part:
                part.write_text(page.html(document), encoding="utf-8")
        except OSError as error:
            raise AudioFileError(f"cannot write {html_path}: {error.strerror}") from None
        console.print(f"wrote {html_path}", soft_wrap=True)


def _live(model: str, device: str, seconds: float) -> dict[str, Any]:
    """Run `rtsep run` as a user would and return its summary."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "live.json"
        command = [sys.executable, "-m", "rtsep", "run", "--model", model, "--device", device]
        command += ["--seconds", str(seconds), "--json", str(summary)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not summary.exists():
            reason = (done.stderr.strip().splitlines() or ["it ended early"])[0]
            raise BenchError(f"`rtsep run` on {device}: {reason.removeprefix('rtsep: ')}")
        found: dict[str, Any] = json.loads(summary.read_text())
    return found


def _print(console: Console, document: dict[str, Any]) -> None:
    found, roof = document["machine"], document["roof"]
    console.print(
        f"{found['processor']}, {found['cores']} cores; one core: {roof['gflops']:.0f} GFLOP/s, "
        f"{roof['memory_gb_per_s']:.0f} GB/s from memory"
    )
    rows = [page.row(result) for result in document["results"]]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for cells in rows:
        table.add_column(cells["model"], justify="right", overflow="fold")
    for name in list(rows[0])[1:]:
        table.add_row(name, *(cells.get(name, "") for cells in rows))
    console.print(table)
    for result in document["results"]:
        if "live" in result:
            live = result["live"]
            figures = ("latency_ms", "hop_time_us", "xruns", "deadline_misses", "starved_samples")
            said = ", ".join(f"{name} {live[name]}" for name in figures)
            console.print(f"{result['label']} live: {said}", soft_wrap=True)
    console.print(page.LEGEND, style="dim")
