"""`rtsep wyoming` as a user starts it, heard by Wyoming's own client over loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsep
from tests.support.audio import band
from tests.support.command import refused
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE_S

pytest.importorskip("wyoming", reason="pip install 'rtsep[wyoming]'")
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

RATE = 48000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def uri(model: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a microphone that hears four seconds of noise; other rates are resampled."""
    sound = band(4 * RATE, 1, RATE)
    soundfile.write(tmp_path / "in.wav", sound, RATE, subtype="FLOAT")
    address = f"tcp://127.0.0.1:{free_port()}"
    options = ["--uri", address, "--device", "in.wav", "--model", str(model), "--source", "noise"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rtsep", "wyoming", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"noise of tiny at {address}; Ctrl-C stops\n"
        yield address
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


async def listen(uri: str, ask: bool) -> tuple[list[Any], Any]:
    """All events until audio-stop, and the answer to describe."""
    events, info = [], None
    async with AsyncClient.from_uri(uri) as client:
        if ask:
            await client.write_event(Describe().event())
        while (event := await asyncio.wait_for(client.read_event(), PATIENCE_S)) is not None:
            if Info.is_type(event.type):
                info = Info.from_event(event)
                continue
            events.append(event)
            if AudioStop.is_type(event.type):
                break
    return events, info


def test_clients_hear_the_source(uri: str, tmp_path: Path, model: Path) -> None:
    async def both() -> Any:
        return await asyncio.gather(listen(uri, ask=True), listen(uri, ask=False))

    sound = soundfile.read(tmp_path / "in.wav", dtype="float32")[0]
    stem = rtsep.separate(sound, RATE, model)["noise"]
    found = asyncio.run(both())
    for events, _ in found:
        start = AudioStart.from_event(events[0])
        assert (start.rate, start.width, start.channels) == (16000, 2, 1)
        chunks = [AudioChunk.from_event(event) for event in events[1:-1]]
        assert {len(chunk.audio) for chunk in chunks} == {640} and len(chunks) > 50
        heard = np.frombuffer(b"".join(chunk.audio for chunk in chunks), np.int16) / 32768
        spectrum = np.fft.rfft(heard)
        heard = 3 * np.fft.irfft(spectrum, 3 * len(heard))  # at the rate of the file
        size = 2 * len(stem)
        product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(stem, size))
        later = int(np.argmax(np.fft.irfft(product)))
        if later < len(stem):  # heard from before the stem on
            heard, later = heard[later:], 0
        place = -later % size
        middle = slice(12000, min(len(heard), len(stem) - place) - 6000)
        error = heard[middle] - stem[place:][middle]
        # A block that was late on a busy machine is the mixture; most are not.
        tenths = np.array_split(error, len(error) // (RATE // 10))
        right = [np.sqrt(np.mean(x**2)) < 0.1 * np.sqrt(np.mean(stem**2)) for x in tenths]
        assert np.mean(right) > 0.7
    (program,) = found[0][1].mic
    assert program.mic_format.rate == 16000 and "noise of tiny" in program.description


def test_what_is_refused(tmp_path: Path, model: Path) -> None:
    demo = ("--device", "demo", "--model", model)
    assert "no source 'voice'" in refused("wyoming", *demo, "--source", "voice")
    assert "can't be served" in refused("wyoming", *demo, "--uri", "http://x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert f"{uri} can't be served" in refused("wyoming", *demo, "--uri", uri)
