"""What `rtsep run` says and draws at its end."""

from __future__ import annotations

from pathlib import Path

import soundfile
from rich.console import Console

from rtsep.cli import fail
from rtsep.cli.report import Report, write_json
from rtsep.files.readers import AudioFileError
from rtsep.realtime.recorder import Takes

PICTURE_S = 600.0
"""The picture shows no more than the first ten minutes of a recording."""


def finish(
    report: Report,
    console: Console,
    elapsed_s: float,
    takes: Takes,
    json_path: Path | None,
) -> None:
    """Say how it went, and draw it."""
    recorders = takes.recorders
    summary = report.summary(elapsed_s, sum(recorder.lost for recorder in recorders))
    console.print(report.text(summary))
    for recorder in recorders:
        for path in recorder.paths:
            console.print(f"wrote {path}", soft_wrap=True)
        if recorder.lost:
            console.print(f"the disk did not keep up: {recorder.lost} samples are not recorded")
        if recorder.error is None:
            picture = draw(recorder.paths, f"{report.control.loaded.name}, live")
            if picture is not None:
                console.print(f"wrote {picture}", soft_wrap=True)
    if json_path is not None:
        write_json(json_path, summary)


def make_folder(path: Path) -> None:
    """Make the folder of a file that is written at the end, to fail at the start."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {error.strerror}") from None


def draw(paths: list[Path], title: str) -> Path | None:
    """Draw the recorded files, mixture first, beside them; nothing if nothing was recorded."""
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
