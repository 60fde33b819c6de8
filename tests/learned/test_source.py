"""``.rtsep`` files, and the commands that make and use them: what comes out, what is refused."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save

from rtsep.errors import LearnedError
from rtsep.learned.source import FORMAT, read, write
from rtsep.spec import Float32
from tests.support.command import refused, rtsep
from tests.support.learned import RATE, noise, source

KINDS = ("nmf", "cnmf", "nae", "nae-deep", "ccae")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind: str, tmp_path: Path) -> None:
    written = source("my voice", kind)
    write(written, tmp_path / "a.rtsep")
    found = read(tmp_path / "a.rtsep")
    assert (found.name, found.model, found.spec) == ("my voice", kind, written.spec)
    for mine, its in zip(written.decoder.matrices, found.decoder.matrices, strict=True):
        np.testing.assert_array_equal(mine, its)
    np.testing.assert_array_equal(found.decoder.usual, written.decoder.usual)
    assert [p.name for p in tmp_path.iterdir()] == ["a.rtsep"]


def told(**changes: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": "a",
        "model": "nmf",
        "training": "",
        "taps": 1,
        "linear": True,
        "scale": 1.0,
        "sample_rate": 16000,
        "window": "hann",
        "window_length": 8,
        "hop_length": 2,
        "synthesis_length": 8,
        **changes,
    }


def tensors(**changes: Any) -> dict[str, Any]:
    good = {"matrix0": np.ones((2, 5), np.float32), "usual": np.full(2, 0.5, np.float32)}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def content(header: object = None, arrays: dict[str, Any] | None = None) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header or told())
    return bytes(save(arrays or tensors(), {"rtsep": text}))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"no source" * 30,
    "pickle": lambda: pickle.dumps({"weight": [1.0]}),
    "cut off": lambda: content()[:-5],
    "longer": lambda: content() + b"12345",
    "header beyond the end": lambda: b"\xff" * 8 + content()[8:],
    "not ours": lambda: bytes(save(tensors())),
    "no JSON": lambda: content("{"),
    "endless JSON": lambda: content("[" * 100_000),
    "a list": lambda: content("[1, 2]"),
    "another format": lambda: content(told(format="rtsep.source.9")),
    "a key missing": lambda: content({k: v for k, v in told().items() if k != "taps"}),
    "a name that is a path": lambda: content(told(name="../a")),
    "a text for a terminal": lambda: content(told(training="\x1b[31m")),
    "an unknown model": lambda: content(told(model="magic")),
    "an unknown window": lambda: content(told(window="boxcar")),
    "a window that is a list": lambda: content(told(window=["hann"])),
    "a window that does not reconstruct": lambda: content(told(hop_length=8)),
    "an endless window": lambda: content(told(window_length=1 << 40)),
    "a rate that is a text": lambda: content(told(sample_rate="16000")),
    "taps": lambda: content(told(taps=10**9)),
    "more taps than it has": lambda: content(told(taps=2)),
    "no scale": lambda: content(told(scale=float("nan"))),
    "no weights": lambda: content(None, tensors(matrix0=None)),
    "NaN": lambda: content(None, tensors(matrix0=np.full((2, 5), np.nan, np.float32))),
    "negative": lambda: content(None, tensors(matrix0=np.full((2, 5), -1, np.float32))),
    "double precision": lambda: content(None, tensors(matrix0=np.ones((2, 5)))),
    "other bins": lambda: content(None, tensors(matrix0=np.ones((2, 6), np.float32))),
    "other rank": lambda: content(None, tensors(usual=np.ones(3, np.float32))),
    "a cube": lambda: content(None, tensors(matrix0=np.ones((2, 5, 1), np.float32))),
    "many tensors": lambda: content(
        None, tensors(**{f"matrix{i}": np.ones((2, 2), np.float32) for i in range(50)})
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_can_not_be_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.rtsep"
    path.write_bytes(HOSTILE[name]())
    with pytest.raises(LearnedError) as caught:
        read(path)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence and "\x1b" not in sentence
    assert caught.value.__cause__ is None


def test_a_good_handmade_file_is_read(tmp_path: Path) -> None:
    """Else the test above would pass for any reason."""
    (tmp_path / "a.rtsep").write_bytes(content())
    assert read(tmp_path / "a.rtsep").decoder.rank == 2


def test_files_that_are_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(LearnedError, match="can't be read"):
        read(tmp_path / "missing.rtsep")
    with pytest.raises(LearnedError, match="folder"):
        read(tmp_path)
    with (tmp_path / "large.rtsep").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(LearnedError, match="larger than 64 MiB"):
        read(tmp_path / "large.rtsep")
    with pytest.raises(LearnedError, match="can't be written"):
        write(source("a"), tmp_path / "large.rtsep" / "a.rtsep")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two noises to learn, and their mixture; low.rtsep and high.rtsep learned from them."""
    folder = tmp_path_factory.mktemp("desk")
    for name, hz in (("low", 300.0), ("high", 3000.0)):
        soundfile.write(folder / f"{name}.wav", noise(hz, 3.0), RATE)
        result = rtsep(
            *("learn", folder / f"{name}.rtsep", "--from", folder / f"{name}.wav"),
            *("--rank", 8, "--updates", 60),
        )
        assert result.exit_code == 0, result.output
        assert "nmf, rank 8, 3.0 s of 1 recording" in result.output
    parts = noise(300.0, 2.0, seed=1), noise(3000.0, 2.0, seed=1)
    soundfile.write(folder / "mix.wav", sum(parts), RATE, subtype="FLOAT")
    for name, part in zip(("low", "high"), parts, strict=True):
        soundfile.write(folder / f"true_{name}.wav", part, RATE, subtype="FLOAT")
    return folder


def snr_db(estimate: Float32, reference: Float32) -> float:
    return float(10 * np.log10(np.sum(reference**2) / np.sum((estimate - reference) ** 2)))


@pytest.mark.parametrize("how", [[], ["--full-fit"], ["--full-fit", "--crossing", "0.5"]])
def test_learned_sources_are_separated(desk: Path, tmp_path: Path, how: list[str]) -> None:
    pair = f"{desk / 'low.rtsep'},{desk / 'high.rtsep'}"
    result = rtsep("separate", desk / "mix.wav", "-o", tmp_path, "--sources", pair, *how)
    assert result.exit_code == 0, result.output
    for name in ("low", "high"):
        stem, _ = soundfile.read(tmp_path / f"mix_{name}.wav", dtype="float32")
        true, _ = soundfile.read(desk / f"true_{name}.wav", dtype="float32")
        assert len(stem) == len(true) and snr_db(stem, true) > 8.0  # the mixture's is 0


def test_stems_of_other_rates_and_channels(desk: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, 0.1 * rng.standard_normal((44100, 2)), 44100, subtype="FLOAT")
    pair = f"{desk / 'low.rtsep'},{desk / 'high.rtsep'}"
    for how in ([], ["--full-fit"]):
        assert rtsep("separate", path, "-o", tmp_path, "--sources", pair, *how).exit_code == 0
        stem, rate = soundfile.read(tmp_path / "stereo_low.wav")
        assert (stem.shape, rate) == ((44100, 2), 44100)


def test_several_recordings_and_a_device(desk: Path, tmp_path: Path) -> None:
    out = tmp_path / "both.rtsep"
    files = desk / "low.wav", desk / "high.wav"
    few = ("--rank", 4, "--updates", 5)
    result = rtsep("learn", out, "--from", *files, "--name", "two noises", *few)
    assert result.exit_code == 0 and "6.0 s of 2 recordings" in result.output
    assert read(out).name == "two noises"
    result = rtsep("learn", out, "--device", "demo", "--seconds", 0.5, *few)
    assert result.exit_code == 0 and "0.5 s of a microphone" in result.output
    assert read(out).name == "both"


def test_what_nothing_can_be_learned_from(desk: Path, tmp_path: Path) -> None:
    sounds = {"silence": np.zeros(16000), "short": noise(300.0, 0.03), "some": noise(300.0, 0.2)}
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
    out = tmp_path / "a.rtsep"

    def said(name: str, *options: object) -> str:
        return refused("learn", out, "--from", tmp_path / f"{name}.wav", *options)

    assert "the recording is silent" in said("silence")
    assert "480 samples are less than one window of 512" in said("short")
    assert "rank 40 exceeds the 28 frames" in said("some")
    assert "not reconstruct" in said("some", "--rank", 4, "--hop", 512)
    assert "even" in said("some", "--window", 333)
    assert "either --from FILE... or --device" in refused("learn", out)
    assert "'mixture'" in refused("learn", tmp_path / "mixture.rtsep", "--from", desk / "low.wav")
    assert str(tmp_path / "none.wav") in said("none")
    assert not out.exists()


def test_sources_that_do_not_fit(desk: Path, tmp_path: Path) -> None:
    low, other = desk / "low.rtsep", tmp_path / "other.rtsep"

    def said(*options: object) -> str:
        return refused("separate", desk / "mix.wav", "-o", tmp_path / "out", *options)

    for option, sentence in (
        (("--rate", 8000), "low was learned with sample_rate 16000, other with 8000"),
        (("--window", 256), "low was learned with window_length 512, other with 256"),
        (("--hop", 64), "low was learned with hop_length 128, other with 64"),
    ):
        few = ("--rank", 4, "--updates", 2)
        assert not rtsep("learn", other, "--from", desk / "high.wav", *few, *option).exit_code
        for how in ([], ["--full-fit"]):
            assert sentence in said("--sources", f"{low},{other}", *how)
    assert "low alone can't be separated" in said("--sources", low)
    assert "two sources share a name" in said("--sources", f"{low},{low}")
    assert "leave it out" in said("--sources", low, "--model", "speech")
    assert "name a learned source" in said("--rest", "voice")
    for options in ([], ["--sources", low], ["--sources", f"{low},{low}", "--rest", "voice"]):
        assert "for two or more --sources" in said("--full-fit", *options)
    other.write_bytes(low.read_bytes()[:-100])
    assert f"{other} is not a learned source, or it is truncated" in said(
        "--sources", f"{low},{other}"
    )
    assert not (tmp_path / "out").exists()


def test_without_torch_auto_encoders_say_what_is_missing(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "rtsep.learned.autoencoders", raising=False)
    monkeypatch.delitem(sys.modules, "rtsep.models", raising=False)
    sentence = refused(
        *("learn", tmp_path / "a.rtsep", "--from", desk / "low.wav", "--model", "nae")
    )
    assert "torch" in sentence and "rtsep[train]" in sentence


def test_noise_is_learned_from_the_beginning_of_a_file(tmp_path: Path) -> None:
    """The first second passes; then what sounds like it is gone, and the voice is not."""
    from rtsep.devices.open import DEMO

    demo, rate = soundfile.read(DEMO, dtype="float32")
    hum = noise(300.0, 5.0)
    speech = np.concatenate([np.zeros(2 * rate, np.float32), demo[: 3 * rate]])
    soundfile.write(tmp_path / "a.wav", hum + speech, rate, subtype="FLOAT")
    result = rtsep("separate", tmp_path / "a.wav", "-o", tmp_path, "--learn-noise", 2)
    assert result.exit_code == 0, result.output
    voice, _ = soundfile.read(tmp_path / "a_voice.wav", dtype="float32")
    rate = round(rate)
    np.testing.assert_allclose(voice[: 2 * rate - 600], hum[: 2 * rate - 600], atol=1e-5)
    after = slice(2 * rate + 600, None)
    before_db = snr_db((hum + speech)[after], speech[after])
    assert snr_db(voice[after], speech[after]) > before_db + 3.0


def test_learned_sources_run_live(desk: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """`rtsep run` is `rtsep separate`, on a made-up device."""
    from rtsep.devices import open as opening
    from rtsep.errors import DeviceError

    def find(query: object, kind: str, process: object) -> None:
        raise DeviceError("there is no sound card")

    monkeypatch.setattr(opening, "find", find)
    options = ("--sources", desk / "low.rtsep", "--rest", "other", "--steps", 5)
    result = rtsep(
        *("run", "-d", desk / "mix.wav", *options, "--record", tmp_path / "rec"),
        *("--json", tmp_path / "s.json"),
    )
    assert result.exit_code == 0, result.output
    assert rtsep("separate", desk / "mix.wav", "-o", tmp_path / "out", *options).exit_code == 0
    if json.loads((tmp_path / "s.json").read_text())["input_overruns"]:
        return  # it did not begin at the beginning
    for name in ("low", "other"):
        live, _ = soundfile.read(tmp_path / "rec" / f"{name}.wav", dtype="float32")
        file, _ = soundfile.read(tmp_path / "out" / f"mix_{name}.wav", dtype="float32")
        n = min(len(live), len(file))
        np.testing.assert_allclose(live[:n], file[:n], atol=1e-5)
