"""The Python interface: what comes out is what the engine makes, whatever shape went in."""

from __future__ import annotations

import asyncio
import doctest
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import rtsep
from rtsep import api, latency, stream, weights
from rtsep.devices import open as opening
from rtsep.errors import BundleError, DeviceError, SpecError
from rtsep.files.readers import read_all
from rtsep.realtime.stem_reader import Tap
from rtsep.runtime.engine import Engine
from rtsep.runtime.model_step import make_step
from rtsep.spec import Spec
from tests.support import models
from tests.support.audio import band
from tests.support.patience import PATIENCE_S

LIGHT = "chandna-speech"


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is heard."""

    def find(query: object, kind: str, process: object) -> None:
        raise DeviceError("there is no sound card")

    monkeypatch.setattr(opening, "find", find)


@pytest.mark.parametrize("module", [api, latency, stream])
def test_examples_of_the_docstrings(module: Any) -> None:
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 2 and not result.failed


def test_every_public_name_is_there_and_documented() -> None:
    for name in rtsep.__all__:
        assert getattr(rtsep, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = rtsep.nothing


def test_importing_is_light() -> None:
    code = (
        "import sys, rtsep;"
        "print([m for m in ('numpy', 'numba', 'onnxruntime', 'rtsep.api') if m in sys.modules]);"
        "from rtsep import live, load, separate;"
        "print([m for m in ('torch', 'sounddevice', 'matplotlib') if m in sys.modules]);"
        "import rtsep.realtime.worker; print(rtsep.live is live)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "[]", "True", ""]


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize(
    ("rate", "block", "channels"), [(16000, 1, 1), (16000, 128, 2), (48000, 1, 1)]
)
def test_blocks_are_the_recording_exactly_as_late_as_said(
    rate: int, block: int, channels: int
) -> None:
    mixture = band(rate // 2 + 7 * block, channels, rate).astype(np.float32)
    if channels == 1:
        mixture = mixture[:, 0]
    sep = rtsep.load(LIGHT, channels=channels, sample_rate=rate, block=block)
    end = len(mixture) // block * block
    whole = rtsep.separate(mixture[:end], rate, LIGHT)
    for _ in range(2):  # flush starts anew
        rng, parts, done = np.random.default_rng(0), [], 0
        while done < end:
            n = min(int(rng.integers(0, 900 // block + 1)) * block, end - done)
            stems = sep.process(mixture[done : done + n])
            assert all(stem.shape == mixture[done : done + n].shape for stem in stems.values())
            assert all(stem.flags.c_contiguous for stem in stems.values())
            parts.append(stems)
            done += n
        parts.append(sep.flush())
        assert {len(stem) for stem in parts[-1].values()} == {sep.latency.samples}
        for name, stem in joined(parts).items():
            np.testing.assert_allclose(
                stem[sep.latency.samples :], whole[name], atol=1e-6 if rate == 16000 else 1e-4
            )
    assert tuple(whole) == sep.sources
    assert sum(sep.latency.terms.values()) == pytest.approx(sep.latency.samples, abs=1e-9)


def test_latency_is_the_engines() -> None:
    bundle = weights.find(LIGHT)
    engine = Engine(make_step(bundle), bundle.spec)
    told = rtsep.load(LIGHT).latency
    assert told.samples == engine.latency.total
    assert told.terms["overlap"] == engine.latency.overlap
    assert rtsep.load(LIGHT, sample_rate=48000).latency.terms["resampling"] > 0


def test_reset_forgets(tmp_path: Any) -> None:
    path = models.write(models.handmade(), tmp_path / "tiny.onnx")
    sep, noise = rtsep.load(path), band(1000, 1, 16000)[:, 0]
    first = sep.process(noise)["speech"]
    assert np.any(sep.process(noise)["speech"] != first)
    sep.reset()
    np.testing.assert_array_equal(sep.process(noise)["speech"], first)


def test_any_layout_and_float_is_taken_and_nothing_given_is_changed() -> None:
    sound = band(1000, 2, 16000)
    expected = rtsep.separate(sound.astype(np.float32), 16000, LIGHT)["speech"]
    readonly = sound.copy()
    readonly.flags.writeable = False
    for same in (sound, readonly, sound.T.copy().T, sound.astype(">f8"), sound.tolist()):
        found = rtsep.separate(same, 16000, LIGHT)["speech"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert rtsep.separate(np.zeros(0), 44100, LIGHT)["noise"].shape == (0,)


def test_what_is_no_sound_is_refused_in_a_sentence() -> None:
    sep = rtsep.load(LIGHT, channels=2, block=64)
    for block, words in (
        (np.zeros((64, 2), np.int16), "divide int16 by 32768"),
        (np.zeros(64), "must be (n, 2) for this stream, not (64,)"),
        (np.zeros((64, 3)), "not (64, 3)"),
        (np.zeros((2, 480)), "transpose"),
        (np.zeros((1, 64, 2)), "(n,) or (n, 2)"),
        (np.zeros((63, 2)), "63 samples are not a multiple of the declared block, 64"),
        (np.array(["a"]), "floats"),
    ):
        with pytest.raises(rtsep.SoundError) as caught:
            sep.process(block)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    for rate in (999, 16000.5, float("nan"), 10**6):
        with pytest.raises(rtsep.SoundError, match="sample_rate"):
            rtsep.load(LIGHT, sample_rate=rate)  # type: ignore[arg-type]
    with pytest.raises(rtsep.SoundError, match="sample 5 of channel 0 is not a finite"):
        rtsep.separate(np.where(np.arange(9) == 5, np.nan, 0.0), 16000)
    for arguments in ({"channels": 0}, {"channels": 65}, {"block": 0}):
        with pytest.raises(rtsep.SoundError):
            rtsep.load(LIGHT, **arguments)
    with pytest.raises(BundleError, match="nobody"):
        rtsep.load("nobody")


def test_a_joint_model_takes_its_channels_only(tmp_path: Any) -> None:
    spec = Spec(16000, 2, "waveform", "rectangular", 64, 64, 1, 1, ("a", "b"))
    path = models.write(models.handmade(spec), tmp_path / "two.onnx")
    for make in (lambda: rtsep.load(path), lambda: rtsep.separate(np.zeros(99), 16000, path)):
        with pytest.raises(SpecError, match="2 channels jointly, not 1"):
            make()
    assert rtsep.load(path, channels=2).process(np.zeros((9, 2)))["b"].shape == (9, 2)


def test_what_is_no_number_becomes_silence_in_a_stream() -> None:
    sep = rtsep.load(LIGHT)
    for value in (np.nan, np.inf, 1e300):
        stems = sep.process(np.full(1000, value))
        assert all(np.isfinite(stem).all() for stem in stems.values())


def test_the_event_loop_stays_free_while_blocks_are_separated() -> None:
    sound, threads = band(4000, 1, 16000)[:, 0], set()
    sep = rtsep.load(LIGHT)
    process = sep.process

    def watched(block: Any) -> Any:
        threads.add(threading.current_thread())
        return process(block)

    sep.process = watched  # type: ignore[method-assign]

    async def microphone() -> AsyncIterator[Any]:
        for first in range(0, 4000, 500):
            yield sound[first : first + 500]

    async def main() -> list[Any]:
        return [stems async for stems in sep.stream(microphone())]

    stems = joined(asyncio.run(main()))["speech"]
    expected = rtsep.separate(sound, 16000, LIGHT)["speech"]
    np.testing.assert_allclose(stems[sep.latency.samples :], expected, atol=1e-6)
    assert threading.main_thread() not in threads


def test_a_live_stream_is_what_separate_makes() -> None:
    demo, rate = read_all(opening.DEMO)

    async def main() -> tuple[list[Any], Any]:
        parts = []
        with rtsep.live(device="demo", model=LIGHT, gains={"noise": -6}) as live:
            async for stems in live.blocks(320):
                parts.append(stems)
                if len(parts) == 40:
                    return parts, live
        raise AssertionError("it ended early")

    parts, live = asyncio.run(main())
    assert all(stem.shape == (320, 1) for part in parts for stem in part.values())
    assert not live.running and live.gains == {"noise": -6}
    assert live.stats["separated_seconds"] >= 0.8
    assert live.latency.terms["headroom"] > 0 and str(live.latency).startswith("64.0 ms = ")
    if live.stats["input_overruns"] or live.stats["unread_samples"]:
        return  # the machine was too busy
    late = live._worker.engine.latency_samples
    whole = rtsep.separate(demo[: 40 * 320], rate, LIGHT)
    for name, stem in joined(parts).items():
        start = _shift(stem[late:, 0], whole[name][:, 0])
        known = slice(start + 1600, 40 * 320 - 1600)
        np.testing.assert_allclose(
            stem[late - start :][known], whole[name][known][: len(stem[late - start :][known])],
            atol=1e-5,
        )  # fmt: skip


def _shift(late: Any, early: Any) -> int:
    """Samples of ``early`` before ``late`` begins: the reader came after the stream had begun."""
    size = 1 << (len(late) + len(early)).bit_length()
    spectra = np.fft.rfft(early, size) * np.fft.rfft(late, size).conj()
    return int(np.argmax(np.fft.irfft(spectra, size)[: len(early)]))


def test_a_live_stream_ends_with_its_file_and_says_what_cannot_be(tmp_path: Any) -> None:
    import soundfile

    path = tmp_path / "talk.wav"
    soundfile.write(path, band(4800, 2, 48000), 48000)
    with rtsep.live(path, LIGHT) as live:
        live.wait(PATIENCE_S)
        assert not live.running
    assert (live.channels, live.sample_rate, live.gains) == (2, 48000, {"speech": 0.0})
    assert live.stats["separated_seconds"] >= 0.1
    with pytest.raises(rtsep.GainError, match="no source 'drums'"):
        live.gains = {"drums": 0}
    live.gains = {"speech": -3, "noise": 6}
    assert live.gains == {"speech": -3.0, "noise": 6.0}
    np.testing.assert_allclose(live._worker.mixer.gains, [10**-0.15, 10**0.3], rtol=1e-6)
    for arguments, words in (
        ({"gains": {"speech": 25}}, "at most 24 dB"),
        ({"gains": {"drums": 0}}, "there is no source 'drums'; there are: speech, noise"),
        ({"device": "no such device"}, "there is no sound card"),
        ({"model": "nobody"}, "nobody"),
    ):
        with pytest.raises(ValueError, match=words):
            rtsep.live(**{"device": "demo", **arguments})


def test_a_fault_of_the_worker_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError("a fault")

    live = rtsep.live("demo", LIGHT)
    monkeypatch.setattr(live._worker, "_state", broken)
    with pytest.raises(ZeroDivisionError, match="a fault"), live:
        live.wait(PATIENCE_S)


def test_a_tap_keeps_nothing_without_a_reader_and_counts_what_a_late_one_loses() -> None:
    tap = Tap(2, 1, 100)
    made = band(320, 2, 16000).astype(np.float32).reshape(5, 64, 2, 1)
    tap.put(made[0])
    assert (tap.readable, tap.lost) == (0, 0)
    tap.reading = True
    for stems in made:
        tap.put(stems)
    assert (tap.readable, tap.lost) == (256, 64)
    np.testing.assert_array_equal(tap.read(100), np.concatenate(made)[:100])
    assert len(tap.read(1000)) == 156 and not tap.readable
