"""Compare rtsep with other denoisers on the same sound, machine and core, alternating.

python -m bench.peers [--peers DIR] [--data DATA] [--rounds 20] [--json FILE]

`pip install pyrnnoise webrtc-noise-gain noisereduce` installs peers from PyPI; missing ones are
skipped. DIR contains streaming models as their authors publish them, which `rtsep models add`
knows: ``gtcrn_simple.onnx``, ``ulunas_stream_simple.onnx``, ``dtln_model_1.onnx`` and
``dtln_model_2.onnx``, ``denoiser_model.onnx`` (DeepFilterNet). Each of them runs twice: as its
authors run it, with numpy's transforms and ONNX Runtime, and adopted, in our engine.

All run with one thread, from samples to samples. They alternate in turns of half a second, so
disturbances affect all; the ratio is that of the medians of one run. With DATA, the quality on
DATA/bench/speech_noise is measured, too: means of SI-SDR improvement and PESQ-WB over its mixtures,
of ours and of the adopted ones, through the engine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import soxr

import rtsep
from rtsep import weights
from rtsep.adopt.adoption import adopt
from rtsep.benchmark.machine import machine
from rtsep.benchmark.trials import percentiles_us
from rtsep.evaluate.metrics import pesq, si_sdr_db
from rtsep.latency import counted
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import Engine, StemOptions
from rtsep.runtime.model_step import make_step
from rtsep.runtime.pipeline import BLOCK, aligned

FILES = {
    "GTCRN": ("gtcrn", ("gtcrn_simple.onnx",)),
    "UL-UNAS": ("ul-unas", ("ulunas_stream_simple.onnx",)),
    "DTLN": ("dtln", ("dtln_model_1.onnx", "dtln_model_2.onnx")),
    "DeepFilterNet": ("deepfilternet", ("denoiser_model.onnx",)),
}
"""Name of the bundle, and files, of the adopted peers."""
TURN_S = 0.5
"""Seconds of sound per turn, at least one hop."""


@dataclass(frozen=True)
class Peer:
    """A denoiser that processes sound hop by hop.

    Attributes
    ----------
    name, rate, hop
        Name, sample rate in Hz, and samples per call.
    latency
        Window plus lookahead in samples; None if it is not live.
    call
        Function of (hop,) float32 that returns as many samples, float32.
    bundle
        The bundle that our engine runs; None if its authors' program runs.
    """

    name: str
    rate: int
    hop: int
    latency: int | None
    call: Callable[[Any], Any]
    bundle: Bundle | None = None


def ours(name: str, bundle: Bundle) -> Peer:
    """Make a peer of a bundle in the engine."""
    spec = bundle.spec
    engine = Engine(make_step(bundle), spec, spec.channels, spec.step_length)
    out = np.empty((spec.step_length, len(spec.sources), spec.channels), np.float32)

    def call(block: Any) -> Any:
        return engine.process(np.ascontiguousarray(block[:, None]), out)[:, 0, 0]

    return Peer(name, spec.sample_rate, spec.step_length, counted(spec), call, bundle)


def session(path: Path) -> onnxruntime.InferenceSession:
    """Open a session with one thread and without spinning, as for our own models."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def spectral(name: str, path: Path) -> Peer:
    """Make the peer GTCRN or UL-UNAS: a spectrum and caches in and out."""
    model = session(path)
    shapes = {i.name: i.shape for i in model.get_inputs() if i.name != "mix"}
    caches = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    window = np.sqrt(np.hanning(513)[:512]).astype(np.float32)
    past, overlap = np.zeros(512, np.float32), np.zeros(512, np.float32)

    def call(block: Any) -> Any:
        past[:256], past[256:] = past[256:].copy(), block
        spectrum = np.fft.rfft(past * window).astype(np.complex64)
        mix = spectrum.view(np.float32).reshape(1, 257, 1, 2)
        enhanced, *following = model.run(None, {"mix": mix, **caches})
        caches.update(zip(caches, following, strict=True))
        overlap[:256], overlap[256:] = overlap[256:].copy(), 0.0
        overlap[:] += np.fft.irfft(enhanced.reshape(-1).view(np.complex64), 512) * window
        return overlap[:256].copy()

    return Peer(name, 16000, 256, 512, call)


def dtln(folder: Path) -> Peer:
    """Make the peer DTLN: a mask on spectra, then a second network on samples."""
    first, second = (session(folder / f"dtln_model_{k}.onnx") for k in (1, 2))
    names = [[i.name for i in model.get_inputs()] for model in (first, second)]
    states = [np.zeros(model.get_inputs()[1].shape, np.float32) for model in (first, second)]
    past, overlap = np.zeros(512, np.float32), np.zeros(512, np.float32)

    def call(block: Any) -> Any:
        past[:384], past[384:] = past[128:].copy(), block
        spectrum = np.fft.rfft(past)
        magnitude = np.abs(spectrum).astype(np.float32).reshape(1, 1, 257)
        mask, states[0] = first.run(None, dict(zip(names[0], (magnitude, states[0]), strict=True)))
        samples = np.fft.irfft(spectrum * mask[0, 0], 512).astype(np.float32).reshape(1, 1, 512)
        made, states[1] = second.run(None, dict(zip(names[1], (samples, states[1]), strict=True)))
        overlap[:384], overlap[384:] = overlap[128:].copy(), 0.0
        overlap[:] += made.reshape(-1)
        return overlap[:128].copy()

    return Peer("DTLN", 16000, 128, 512, call)


def deepfilternet(path: Path) -> Peer:
    """Make the peer DeepFilterNet: samples, one vector of state and a constant option."""
    model = session(path)
    state = [np.zeros(model.get_inputs()[1].shape, np.float32)]
    limit = np.zeros((), np.float32)

    def call(block: Any) -> Any:
        feeds = {"input_frame": block, "states": state[0], "atten_lim_db": limit}
        made, state[0], _ = model.run(None, feeds)
        return made

    return Peer("DeepFilterNet", 48000, 512, 2048, call)


def rnnoise() -> Peer:
    """Make the peer RNNoise (2024) of pyrnnoise: 48 kHz, window 20 ms, lookahead 10 ms."""
    from pyrnnoise.rnnoise import create, process_mono_frame

    state = create()

    def call(block: Any) -> Any:
        pcm = (block * 32767).astype(np.int16)
        return process_mono_frame(state, pcm)[0].astype(np.float32) / 32767

    return Peer("RNNoise", 48000, 480, 1440, call)


def webrtc() -> Peer:
    """Make the peer WebRTC of webrtc-noise-gain: hop 10 ms, window 16 ms."""
    from webrtc_noise_gain import AudioProcessor

    processor = AudioProcessor(0, 3)

    def call(block: Any) -> Any:
        audio = processor.Process10ms((block * 32767).astype(np.int16).tobytes()).audio
        return np.frombuffer(audio, np.int16).astype(np.float32) / 32767

    return Peer("WebRTC", 16000, 160, 256, call)


def noise_reduce() -> Peer:
    """Make the peer noisereduce: spectral gating of ten seconds at once, not live."""
    from noisereduce import reduce_noise

    return Peer("noisereduce", 16000, 160_000, None, lambda x: reduce_noise(x, 16000, n_jobs=1))


def available(folder: Path | None) -> Iterator[Peer]:
    """Yield all installed peers."""
    for name in weights.names():
        if "speech" in name:
            yield ours(name, weights.find(name))
    for name, (bundle, files) in FILES.items() if folder is not None else ():
        assert folder is not None
        paths = [folder / file for file in files]
        if not all(path.exists() for path in paths):
            print(f"left out: {folder} lacks {files[0]}")
            continue
        if name == "DTLN":
            yield dtln(folder)
        elif name == "DeepFilterNet":
            yield deepfilternet(paths[0])
        else:
            yield spectral(name, paths[0])
        yield ours(name, adopt(paths, bundle))
    for make in (rnnoise, webrtc, noise_reduce):
        try:
            yield make()
        except ImportError as error:
            print(f"left out: {error.name} is not installed")


def quality(bundle: Bundle, folder: Path) -> dict[str, float]:
    """Return the mean SI-SDR improvement in dB and PESQ-WB of the first source."""
    gains, scores = [], []
    with (folder / "list.csv").open(encoding="utf-8") as file:
        names = [row["id"] for row in csv.DictReader(file)]
    for name in names:
        mixture, rate = soundfile.read(folder / f"{name}_mixture.flac", dtype="float32")
        speech, _ = soundfile.read(folder / f"{name}_speech.flac", dtype="float32")
        step = make_step(bundle)
        options = StemOptions(floor_db=bundle.floor_db)
        engine = Engine(step, bundle.spec, rate_hz=rate, options=options)
        blocks = (mixture[at : at + BLOCK, None] for at in range(0, len(mixture), BLOCK))
        parts = [part[:, 0, 0].copy() for part in aligned(engine, blocks)]
        made = np.concatenate(parts)[: len(speech)]
        gains.append(si_sdr_db(made, speech) - si_sdr_db(mixture, speech))
        scores.append(pesq(made, speech, rate, "wb"))
    return {
        "si_sdri_db": round(float(np.mean(gains)), 2),
        "pesq_wb": round(float(np.mean(scores)), 2),
    }


def compare(peers: list[Peer], sounds: dict[int, Any], rounds: int) -> list[dict[str, Any]]:
    """Time the calls of all peers, alternating."""
    times: list[list[float]] = [[] for _ in peers]
    at = [0] * len(peers)
    for _ in range(rounds + 1):
        for k, peer in enumerate(peers):
            sound = sounds[peer.rate]
            for _ in range(max(1, round(TURN_S * peer.rate / peer.hop))):
                if at[k] + peer.hop > len(sound):
                    at[k] = 0
                block = sound[at[k] : at[k] + peer.hop]
                at[k] += peer.hop
                start = time.perf_counter()
                peer.call(block)
                times[k].append(time.perf_counter() - start)
    results = []
    for k, peer in enumerate(peers):
        turns = np.array(times[k][len(times[k]) // (rounds + 1) :])  # the first one warms up
        hop_s = peer.hop / peer.rate
        results.append(
            {
                "name": peer.name,
                "runtime": "authors" if peer.bundle is None else "rtsep",
                "hop_ms": round(1000 * hop_s, 4),
                "latency_ms": None if peer.latency is None else 1000 * peer.latency / peer.rate,
                "hop_us": percentiles_us(turns),
                "real_time_factor": round(float(np.median(turns)) / hop_s, 5),
            }
        )
    for result in results:
        ratio = (
            result["real_time_factor"]
            / results[[p.name for p in peers].index("speech")]["real_time_factor"]
        )
        result["times_speech"] = round(ratio, 3)
    return results


def main() -> None:
    """Compare all available peers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="folder of the streaming ONNX peers")
    parser.add_argument("--data", type=Path, help="folder with bench/speech_noise")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sound, rate = soundfile.read(Path(rtsep.__file__).with_name("demo.flac"), dtype="float32")
    sound = np.tile(sound if sound.ndim == 1 else sound[:, 0], 4)
    peers = list(available(arguments.peers))
    sounds = {peer.rate: soxr.resample(sound, rate, peer.rate) for peer in peers}
    results = compare(peers, sounds, arguments.rounds)
    for peer, result in zip(peers, results, strict=True):
        if peer.bundle is not None and arguments.data is not None:
            result |= quality(peer.bundle, arguments.data / "bench" / "speech_noise")
        late = result["latency_ms"]
        print(
            f"{result['name']:16} {result['runtime']:8} {result['hop_us']['p50']:9.1f} µs "
            f"per hop of {result['hop_ms']:.1f} ms, RTF {result['real_time_factor']:.4f} "
            f"= {result['times_speech']:.2f} times speech, "
            + ("not live" if late is None else f"{late:.0f} ms late")
        )
    if arguments.json:
        document = {"machine": machine(), "rounds": arguments.rounds, "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
