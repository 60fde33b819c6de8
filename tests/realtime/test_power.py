"""The file that prevents deep sleep is held open while a stream runs, where that is allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtsep.diagnostics import doctor
from rtsep.realtime import power
from rtsep.realtime.worker import StreamWorker, WorkerOptions
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from tests.support.stream import BUNDLE, SPEC, Hand


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpu_dma_latency"
    monkeypatch.setattr(power, "PATH", path)
    return path


def held(path: Path) -> bool:
    """Whether this process has a file open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if descriptor.readlink() == path:
                return True
        except OSError:  # the folder's own descriptor
            continue
    return False


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are not listed")


@linux
@pytest.mark.parametrize("realtime", [True, False])
def test_a_stream_holds_it_open(realtime: bool, file: Path) -> None:
    file.write_bytes(b"\x00\x94\x35\x77")  # two thousand seconds, the system's default
    engine = Engine(make_step(BUNDLE), SPEC, 1, 16)
    options = WorkerOptions(realtime=realtime)
    live = StreamWorker(Hand(16_000, 1, 1, 16, 64), engine, np.ones(2, np.float32), options)
    assert not held(file)
    live.start()
    try:
        assert held(file) == realtime
        limit_us = int.from_bytes(file.read_bytes(), "little")
        assert (0 < limit_us < 50) == realtime  # 0: cores spin and do not sleep at all
    finally:
        live.stop()
    assert not held(file)


def test_where_it_is_not_allowed_nothing_happens(file: Path) -> None:
    for exists in (False, True):
        if exists:
            file.mkdir()
        with power.awake() as granted:
            assert not granted
    with pytest.raises(OSError, match="mine"), power.awake():
        raise OSError("mine")


@pytest.mark.parametrize("exists", [True, False])
def test_the_doctor_says_whether_it_is_allowed(
    exists: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    if exists:
        file.write_bytes(bytes(4))
    (finding,) = doctor.deep_sleep()
    assert finding.ok and bool(finding.fix) is not exists
    assert finding.text.startswith("is prevented" if exists else "is not prevented")
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    (finding,) = doctor.deep_sleep()
    assert "darwin" in finding.text and not finding.fix
