"""The page in one folder: in a real browser, from a static host without any headers."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import soundfile

from rtsep.portable import web
from tests.support import models
from tests.support.browser import Page, chromium, program
from tests.support.command import refused, rtsep
from tests.support.npm import node_modules
from tests.support.spoken import scores, speech_and_mixture


def written(folder: Path, *options: object) -> Path:
    runtime = node_modules() / "onnxruntime-web"
    done = rtsep("ui", "--static", folder, "--runtime", runtime, *options)
    assert done.exit_code == 0 and "python -m http.server" in done.stdout, done.output
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A plain file server on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    files = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_folder_is_complete_and_names_its_version(tmp_path: Path) -> None:
    models.write(models.handmade(models.CHANDNA, licence="MIT"), tmp_path / "b.onnx")
    folder = written(tmp_path / "page", "--model", tmp_path / "b.onnx")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    text = (folder / "sw.js").read_text()
    listed = json.loads(text.split("const FILES = ")[1].split(";")[0])
    assert {*listed} == names - {"sw.js"} | {"./"} and "@" not in text
    figures = json.loads((folder / "model.json").read_text())
    assert figures["sources"] == ["speech", "noise"] and figures["block"] == 16
    for path in folder.glob("*.*"):
        if path.suffix in (".js", ".html", ".css"):
            assert "http" not in path.read_text().replace("https pages", "")
    before = text
    models.write(models.handmade(models.CHANDNA, licence="none"), tmp_path / "b.onnx")
    written(tmp_path / "page", "--model", tmp_path / "b.onnx")
    assert (folder / "sw.js").read_text() != before


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, runtime = tmp_path / "page", node_modules() / "onnxruntime-web"
    assert "--port can't be used with --static" in refused("ui", "--static", page, "--port", 80)
    assert "--runtime needs --static" in refused("ui", "--runtime", tmp_path)
    told = refused("ui", "--static", page, "--runtime", tmp_path)
    assert f"is not that of onnxruntime-web {web.VERSION}" in told
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "install npm" in refused("ui", "--static", page)
    models.write(models.handmade(replace(models.CHANDNA, channels=2)), tmp_path / "b.onnx")
    options = ("--model", tmp_path / "b.onnx", "--runtime", runtime)
    assert "the page separates one channel" in refused("ui", "--static", page, *options)
    assert not page.exists()


SIMULATION = """
import { allocate, CAPTURED, SEPARATED } from "./rings.js";
const RATE = 16000, LATE = 128, BLOCK = 128, COUNT = 64;
globalThis.sampleRate = RATE;
globalThis.AudioWorkletProcessor = class { constructor() { this.port = { postMessage() {} }; } };
let Player;
globalThis.registerProcessor = (_, made) => (Player = made);
await import("./worklet.js");
const held = JSON.parse(process.argv[2]);  // from, to and length of delays, in calls
const rings = allocate(2), mask = rings.length - 1;
rings.weights[0] = 1;
const player = new Player({ processorOptions: { rings, late: LATE } });
const heard = [], played = [], queues = [];
let done = 0;
for (let call = 0; call < Number(process.argv[3]); call++) {
  const block = Float32Array.from({ length: COUNT }, (_, i) => Math.sin(0.05 * (call * COUNT + i)));
  const out = new Float32Array(COUNT);
  player.process([[block]], [[out]]);
  heard.push(...block); played.push(...out); queues.push([player.queue, player.misses]);
  const late = held.find(([from, to]) => from <= call && call < to)?.[2] ?? 4;  // calls
  const until = Math.floor((heard.length - late * COUNT) / BLOCK) * BLOCK;
  for (; done < until; done++) {  // the model: half the mixture, LATE samples late
    rings.sources[0][done & mask] = 0.5 * (heard[done - LATE] ?? 0);
    rings.sources[1][done & mask] = 7;
  }
  Atomics.store(rings.control, SEPARATED, done);
}
console.log(JSON.stringify({ heard, played, queues, late: LATE }));
"""


def simulated(folder: Path, held: list[list[int]], calls: int = 3000) -> Any:
    """Run the audio thread's code in Node; calls of 4 ms, a model that is late as told."""
    for name in ("rings.js", "worklet.js"):
        shutil.copy(Path(web.__file__).parent / "static" / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(SIMULATION)
    command = ["node", "run.js", json.dumps(held), str(calls)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {key: np.array(value) for key, value in json.loads(done.stdout).items()}


def test_what_is_played_is_the_model_in_time(tmp_path: Path) -> None:
    node_modules()
    found = simulated(tmp_path, [])
    queue, misses = found["queues"][-1]
    assert misses == 0 and queue <= (4 + 2 + 1) * 64 + 0.03 * 16000
    begin = round(2.1 * 16000)
    expected = 0.5 * np.roll(found["heard"], queue + found["late"])
    np.testing.assert_allclose(found["played"][begin:], expected[begin:], atol=1e-6)


def test_late_samples_are_replaced_without_a_click_and_the_queue_shrinks_again(
    tmp_path: Path,
) -> None:
    """A hiccup of 120 ms at 4 s; ten to twenty seconds later, the latency is what it was."""
    node_modules()
    found = simulated(tmp_path, [[1000, 1030, 34]], 8000)
    queues, misses = found["queues"].T
    assert misses[990] == 0 and 0 < misses[1040] == misses[-1] <= 30
    assert queues[1040] > queues[990] and queues[-1] <= queues[990] + 0.03 * 16000
    steps = np.abs(np.diff(found["played"][round(2.1 * 16000) :]))
    assert steps.max() < 0.05 + 1.5 / 80  # of the sine itself, and of the fade


def recorded(page: Page, folder: Path, seconds: float) -> tuple[Any, int]:
    """Press Record twice and read the file."""
    page.click("#record")
    time.sleep(seconds)
    page.click("#record")
    path = folder / "rtsep.wav"
    for _ in range(100):
        if path.exists() and not [*folder.glob("*.crdownload")]:
            break
        time.sleep(0.1)
    sound, rate = soundfile.read(path)
    path.unlink()
    return sound, rate


@pytest.mark.device
@pytest.mark.parametrize(
    ("model", "better_db", "seconds"),
    [
        ("speech", 3, 6),
        pytest.param("speech", 3, 60, marks=pytest.mark.soak),
        pytest.param("chandna-speech", 0, 60, marks=pytest.mark.soak),
    ],
)
def test_a_browser_separates_its_microphone(
    model: str, better_db: float, seconds: int, tmp_path: Path
) -> None:
    program()
    folder = written(tmp_path / "page", "--model", model)
    speech, mixture = speech_and_mixture()
    soundfile.write(tmp_path / "microphone.wav", mixture, 16000, subtype="PCM_16")
    with chromium(tmp_path, tmp_path / "microphone.wav") as page:
        page.save_downloads(tmp_path)
        with served(folder) as address:
            page.open(address)
            page.wait(
                "self.crossOriginIsolated && document.querySelector('#start')?.disabled === false",
            )
            page.click("#start")
            page.wait("document.querySelector('#state').dataset.state === 'live'")
        # The server is gone: all the rest is in the browser.
        time.sleep(3)
        before = int(page.text("#misses"))
        sound, rate = recorded(page, tmp_path, seconds)
        misses = int(page.text("#misses")) - before
        load, latency = page.text("#load"), page.text("#latency")
        (tmp_path / "page.png").write_bytes(page.screenshot())
        page.click("#original")
        time.sleep(0.5)
        original, _ = recorded(page, tmp_path, 4)
        page.click("#start")
        page.wait("document.querySelector('#state').textContent === 'idle'")
        page.open("about:blank")
        page.open(address)  # offline
        page.wait("document.querySelector('#start')?.disabled === false")
        problems = [text for text in page.problems if "ERR_CONNECTION_REFUSED" not in text]
    assert not problems
    assert len(sound) > 0.5 * seconds * rate
    (after, gain), (before_db, _) = scores(sound, speech, rate), scores(original, speech, rate)
    found = f"SI-SDR {before_db:.1f} to {after:.1f} dB"
    print(f"{misses} misses, real-time factor {load}, latency {latency}, {found}")
    assert after > before_db + better_db and -6 < gain < 3
    assert np.abs(np.diff(sound)).max() < 2 * np.abs(np.diff(mixture)).max()  # no click
    assert float(load) > 0 and float(latency.split()[0]) > 8
