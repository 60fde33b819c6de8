"""`rtsep run` on a real PortAudio device: audio in, the separated source out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from rtsep.evaluate.metrics import si_sdr_db
from rtsep.files.readers import read_all
from tests.support.command import rtsep
from tests.support.jack import JACK_BLOCK, JACK_RATE
from tests.support.paths import DEMO
from tests.support.patience import PATIENCE_S

SECONDS = 6.0
PIECE = 4 * JACK_BLOCK
"""Short: a period that the cable misses, which is Python, spoils all of its piece."""
MOST = 0.5
"""Of the pieces must be exactly right; those in which a period is missing can't be."""


class Cable:
    """A JACK client wired to a PortAudio stream: plays ``audio`` into it, records what it plays."""

    def __init__(self, audio: np.ndarray) -> None:
        import jack

        self.client = jack.Client("cable", no_start_server=True)
        self.out = self.client.outports.register("out")
        self.heard = self.client.inports.register("in")
        self.played, self.start, self.lost = 0, -1, 0
        self.record = np.zeros_like(audio)

        @self.client.set_process_callback
        def exchange(frames: int) -> None:
            # By the server's clock: a period that this program misses is lost, nothing shifts.
            now = self.client.last_frame_time
            if self.wired and self.start < 0:
                self.start = now
            position = now - self.start
            self.lost += self.wired and position != self.played
            if not self.wired or position + frames > len(audio):
                self.out.get_array()[:] = 0.0
            else:
                self.out.get_array()[:] = audio[position : position + frames]
                self.record[position : position + frames] = self.heard.get_array()
            self.played = position + frames if self.wired else 0

        self.wired = False
        self.client.activate()

    @property
    def spoilt(self) -> bool:
        """Whether periods were lost in half of the pieces; each may spoil two."""
        return 2 * self.lost > MOST * len(self.record) / PIECE

    def connect(self, timeout: float = PATIENCE_S) -> None:
        """Wait for the stream and take the place of the sound card on all its sides."""
        deadline = time.monotonic() + timeout
        while not (outputs := self.client.get_ports("PortAudio", is_output=True)):
            assert time.monotonic() < deadline, "rtsep run opened no stream"
            time.sleep(0.05)
        time.sleep(0.5)
        for port in self.client.get_ports("PortAudio", is_input=True)[:1]:
            for other in self.client.get_all_connections(port):
                self.client.disconnect(other, port)
            self.client.connect(self.out, port)
        self.client.connect(outputs[0], self.heard)
        self.wired = True


def delay_of(late: np.ndarray, early: np.ndarray) -> int:
    """Samples by which ``late`` is behind ``early``, by cross-correlation."""
    n = 1 << (len(late) + len(early)).bit_length()
    product = np.fft.rfft(late, n) * np.conj(np.fft.rfft(early, n))
    return int(np.argmax(np.fft.irfft(product, n)[: len(late)]))


def alike(late: np.ndarray, early: np.ndarray) -> float:
    """Share of the pieces of ``early`` that are found unchanged anywhere in ``late``."""
    pieces, found = 0, 0
    for at in range(0, len(early) - PIECE, PIECE):
        piece = early[at : at + PIECE]
        loudest = int(np.argmax(np.abs(piece)))
        if np.abs(piece[loudest]) < 1e-3:
            continue
        pieces += 1
        same = np.flatnonzero(np.abs(late - piece[loudest]) < 1e-6) - loudest
        there = [late[i : i + PIECE] for i in same if 0 <= i <= len(late) - PIECE]
        found += any(np.max(np.abs(part - piece)) < 1e-6 for part in there)
    assert pieces >= 8
    return found / pieces


@pytest.mark.device
def test_known_audio_goes_in_and_its_speech_comes_out(jack: str, tmp_path: Path) -> None:
    demo, rate = read_all(DEMO)
    audio = np.asarray(soxr.resample(demo[:, 0], rate, JACK_RATE), np.float32)
    audio = audio[: int(SECONDS * JACK_RATE) // JACK_BLOCK * JACK_BLOCK]
    folder, summary_path = tmp_path / "live", tmp_path / "run.json"
    cable = Cable(audio)
    model = ["--model", "chandna-speech"]  # one that soon forgets the silence it began with
    command = [sys.executable, "-m", "rtsep", "run", "--device", jack, "--record", str(folder)]
    run = subprocess.Popen(
        [*command, *model, "--json", str(summary_path), "--buffer", "40"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        cable.connect()
        while cable.played < len(audio):
            time.sleep(0.1)
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=PATIENCE_S)
    finally:
        run.kill()
        cable.client.deactivate()
        cable.client.close()
    assert run.returncode == 0
    assert "xruns" in said
    summary = json.loads(summary_path.read_text())
    assert summary["seconds"] > SECONDS
    if summary["input_overruns"] or summary["deadline_misses"] or cable.spoilt:
        return  # the machine was too busy
    whole = not (cable.lost or summary["missed_callbacks"] or summary["xruns"])
    assert summary["latency_ms"] == summary["latency_at_start_ms"]

    # What went in is what was recorded, and its stems are those of `rtsep separate`.
    mixture, _ = soundfile.read(folder / "mixture.wav", dtype="float32")
    speech, _ = soundfile.read(folder / "speech.wav", dtype="float32")
    assert len(mixture) == len(speech)
    soundfile.write(tmp_path / "known.wav", audio, JACK_RATE, "FLOAT")
    files = folder / "mixture.wav", tmp_path / "known.wav"
    assert rtsep("separate", *model, *files, "-o", tmp_path).exit_code == 0
    again, _ = soundfile.read(tmp_path / "mixture_speech.wav", dtype="float32")
    np.testing.assert_allclose(speech, again, atol=1e-5)
    start = delay_of(mixture, audio)
    assert alike(mixture, audio) > MOST

    # What came out of the device is that speech, exactly as late as printed.
    heard = cable.record
    terms = summary["latency_terms_ms"]
    inside = sum(ms for name, ms in terms.items() if not name.startswith("device"))
    late = delay_of(heard, speech[start : start + len(audio)])
    # The graph adds a period for each way that is not direct: those are the device's terms.
    if whole:
        assert 0 <= late - round(inside / 1000 * JACK_RATE) <= 4 * JACK_BLOCK
        half = len(audio) // 2
        assert delay_of(heard[half:], speech[start + half : start + len(audio)]) == late
    assert alike(heard, speech) > MOST

    if not whole:
        return
    # And it matches `rtsep separate` on the known audio itself: only the frames fall elsewhere.
    known, _ = soundfile.read(tmp_path / "known_speech.wav", dtype="float32")
    scores = []
    for at in range(JACK_RATE, len(heard) - 2 * JACK_RATE, JACK_RATE):
        piece = heard[at + late : at + late + JACK_RATE]
        scores.append(si_sdr_db(piece, known[at : at + JACK_RATE]))
    assert np.percentile(scores, 75) > 20.0


@pytest.mark.device
def test_the_demo_is_heard_where_there_is_a_sound_card(jack: str, tmp_path: Path) -> None:
    cable = Cable(np.zeros(4 * JACK_RATE, np.float32))
    command = [sys.executable, "-m", "rtsep", "run", "--device", "demo", "--output", jack]
    command += ["--record", str(tmp_path)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        cable.connect()
        while cable.played < len(cable.record):
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert run.wait(PATIENCE_S) == 0
    finally:
        run.kill()
        cable.client.deactivate()
        cable.client.close()
    speech, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    assert rate == JACK_RATE
    # The demo repeats, so its place in the recording is not looked for by likeness.
    assert cable.spoilt or alike(speech, cable.record) > MOST


@pytest.mark.device
def test_devices_and_an_unknown_device(jack: str) -> None:
    assert "JACK Audio Connection Kit (2 in, 2 out)" in rtsep("devices").stdout
    wrong = rtsep("run", "--device", "no such thing")
    assert wrong.exit_code == 2
    first, *rest = wrong.stderr.splitlines()
    assert first.startswith("rtsep: ")
    assert "no such thing" in first
    assert "JACK Audio Connection Kit (2 in, 2 out)" in "\n".join(rest)
