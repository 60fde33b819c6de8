"""The status line and the summary of `rtsep run`, and the picture of a recording."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import Any

import soundfile
from rich.console import Console

from rtsep.cli import fail
from rtsep.errors import AudioFileError
from rtsep.files.atomic import replacing
from rtsep.realtime.builder import Stream
from rtsep.version import __version__

METER_CELLS = 8
FLOOR_DB = -60.0
PICTURE_S = 600.0
"""Longest part of a recording that is drawn, in seconds."""


class Report:
    """Figures of a live stream.

    Parameters
    ----------
    stream
        The stream.

    Attributes
    ----------
    completed
        Whether the stream ended as requested, not by a fault.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream, self.live = stream, stream.worker
        self.completed = False
        self._latency_start = stream.latency_ms

    def latency_terms_ms(self) -> dict[str, float]:
        """Latency from microphone to loudspeaker by its terms, in ms."""
        return self.live.latency.terms_ms

    def latency_line(self) -> str:
        """Format the latency and its nonzero terms."""
        terms = {name: ms for name, ms in self.latency_terms_ms().items() if ms}
        return f"latency {self.stream.latency_ms:.1f} ms = " + " + ".join(
            f"{name} {ms:.1f}" for name, ms in terms.items()
        )

    def blocks_line(self) -> str:
        """Say what blocks cost that do not divide the model's hop; empty if they do."""
        device, engine = self.live.device, self.live.engine
        spec, block_ms = engine.spec, 1000 * device.block / device.sample_rate
        rate_khz = spec.sample_rate / 1000
        hop_ms = spec.step_length / rate_khz
        wait_ms = engine.latency.reblocking / rate_khz + block_ms - hop_ms
        if wait_ms < 0.05:
            return ""
        return (
            f"blocks of {device.block} samples ({block_ms:.1f} ms) do not divide the model's hop "
            f"of {hop_ms:.1f} ms: that costs {wait_ms:.1f} ms"
        )

    def status(self, elapsed_s: float) -> str:
        """Return a line with latency, load, faults and levels."""
        chain = self.live.chain
        names = ("in", *chain.engine.spec.sources)
        levels = " ".join(
            f"{name} {_meter(float(peak))}"
            for name, peak in zip(names, chain.mixer.peaks(), strict=True)
        )
        stats = self.live.device.stats()
        return (
            f"{elapsed_s:6.1f} s  latency {self.stream.latency_ms:.1f} ms  "
            f"RTF {self.live.real_time_factor:.3f}  "
            f"p99 {1000 * self.live.hops.percentile_s(99):.2f} ms  "
            f"xruns {stats.xruns}  misses {stats.starvations}  {levels}"
            + ("  NOT RECORDING" if self.live.recorder and self.live.recorder.error else "")
        )

    def summary(self, elapsed_s: float) -> dict[str, Any]:
        """Return all measurements, for JSON."""
        device = self.live.device
        spec = self.live.engine.spec
        return {
            "rtsep": __version__,
            "machine": f"{platform.machine()} {platform.system()}, Python "
            f"{platform.python_version()}, one thread per model",
            "model": self.stream.control.loaded.name,
            "device": device.name,
            "sample_rate_hz": device.sample_rate,
            "block": device.block,
            "seconds": round(elapsed_s, 3),
            "completed": self.completed,
            "latency_ms": round(self.stream.latency_ms, 3),
            "latency_at_start_ms": round(self._latency_start, 3),
            "latency_terms_ms": {k: round(v, 3) for k, v in self.latency_terms_ms().items()},
            "hop_ms": 1000 * spec.step_length / spec.sample_rate,
            **self.stream.figures(),
        }

    def text(self, summary: dict[str, Any]) -> str:
        """Format the summary."""
        hop = summary["hop_time_us"]
        unchanged = summary["latency_ms"] == summary["latency_at_start_ms"]
        lines = [
            f"{summary['separated_seconds']:.1f} s separated, RTF {summary['real_time_factor']:.4f}"
            f" on one core; a hop of {summary['hop_ms']:.1f} ms took"
            f" {hop['p50'] / 1000:.2f} ms (p99 {hop['p99'] / 1000:.2f},"
            f" p99.9 {hop['p99.9'] / 1000:.2f}, max {hop['max'] / 1000:.2f})",
            f"xruns {summary['xruns']}, missed callbacks {summary['missed_callbacks']},"
            f" deadline misses {summary['deadline_misses']}",
            self.latency_line() + ("" if unchanged else ", changed since the start"),
        ]
        if summary["deadline_misses"]:
            longest_ms = 1000 * summary["longest_starvation"] / summary["sample_rate_hz"]
            lines.append(
                f"late output was replaced for {summary['starved_samples']} samples, at most "
                f"{longest_ms:.0f} ms at once; {summary['dropped_samples']} samples of backlog "
                "were dropped"
            )
        if summary["standstills"]:
            lines.append(
                f"this machine stood still {summary['standstills']} times; that is not counted as "
                "misses"
            )
        if summary["device_losses"]:
            lines.append(
                f"the device was lost {summary['device_losses']} times, for "
                f"{summary['device_away_s']:.1f} s, which are not recorded"
            )
        if summary["nonfinite_in"] or summary["nonfinite_out"]:
            lines.append(
                f"NaN or Inf: {summary['nonfinite_in']} samples from the device, "
                f"{summary['nonfinite_out']} frames from the model; silence was played instead"
            )
        return "\n".join(lines)


def _meter(peak: float) -> str:
    """Draw a peak level as a bar with its value in dB re full scale."""
    level_db = 20 * math.log10(max(peak, 1e-9))
    filled = round(METER_CELLS * (1 - max(min(level_db, 0.0), FLOOR_DB) / FLOOR_DB))
    return f"{'█' * filled}{'░' * (METER_CELLS - filled)} {max(level_db, FLOOR_DB):4.0f}"


def write_json(path: Path, summary: dict[str, Any]) -> None:
    """Write a summary.

    Raises
    ------
    AudioFileError
        The file can't be written.
    """
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {error.strerror}") from None


def finish(
    report: Report,
    console: Console,
    elapsed_s: float,
    json_path: Path | None,
) -> None:
    """Print the summary, write it as JSON, and draw the recordings."""
    summary = report.summary(elapsed_s)
    console.print(report.text(summary))
    for recorder in report.stream.takes.recorders:
        for path in recorder.paths:
            console.print(f"wrote {path}", soft_wrap=True)
        if recorder.lost:
            console.print(f"the disk was too slow: {recorder.lost} samples are not recorded")
        if recorder.error is None:
            picture = draw(recorder.paths, f"{report.stream.control.loaded.name}, live")
            if picture is not None:
                console.print(f"wrote {picture}", soft_wrap=True)
    if json_path is not None:
        write_json(json_path, summary)


def make_folder(path: Path) -> None:
    """Create the folder of a file that is written at the end, to report errors early."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {error.strerror}") from None


def draw(paths: list[Path], title: str) -> Path | None:
    """Draw the recorded files, mixture first, into their folder; None without samples."""
    from rtsep.files.spectrogram import spectrograms

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
