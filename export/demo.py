"""Make ``rtsep/demo.flac``: synthetic voices in synthetic noise, without third-party rights.

``python -m export.demo`` writes it, and the voices alone as ``rtsep/demo-speech.flac``, to score a
separation. The voices are those of espeak-ng; all other sounds are computed.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from rtsep.spec import Float64

TARGET = Path(__file__).parents[1] / "rtsep" / "demo.flac"
SPEECH = TARGET.with_name("demo-speech.flac")
RATE_HZ = 16000
LENGTH_S = 12.5
SNR_DB = 4.0
PEAK_DB = -3.0
SEED = 7

# Start in s, level in dB, espeak-ng's voice, words per minute, pitch (0-99), sentence.
SENTENCES = (
    (0.5, 0.0, "en-us+f2", 165, 55, "This voice reaches you a few milliseconds late."),
    (3.9, -1.0, "en-gb+m3", 160, 35, "The fan, the keyboard and the street stay behind."),
    (7.6, 0.5, "en-gb-scotland+f4", 160, 62, "Every sound gets a channel of its own,"),
    (10.1, -0.5, "en-us+m7", 165, 40, "while you are still speaking."),
)


def say(voice: str, words_per_minute: int, pitch: int, sentence: str) -> Float64:
    """Return one spoken sentence at 16 kHz, (n,), with power 1."""
    program = shutil.which("espeak-ng")
    if program is None:
        sys.exit("espeak-ng is missing: install it (Debian, Ubuntu: apt install espeak-ng)")
    command = [program, "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout"]
    spoken = subprocess.run([*command, sentence], capture_output=True, check=True).stdout
    speech, rate_hz = soundfile.read(io.BytesIO(spoken), dtype="float64")
    loud = np.flatnonzero(np.abs(speech) > 0.01 * np.abs(speech).max())
    speech = resampled(speech[loud[0] : loud[-1] + 1], rate_hz)
    return speech / np.sqrt(np.mean(speech**2))


def resampled(sound: Float64, rate_hz: int) -> Float64:
    """Resample a short sound to 16 kHz by truncating its spectrum."""
    seconds = -(-len(sound) // rate_hz)  # whole seconds, so that both rates have the same bins
    spectrum = np.fft.rfft(sound, seconds * rate_hz)[: seconds * RATE_HZ // 2 + 1]
    padded = np.fft.irfft(spectrum, seconds * RATE_HZ) * (RATE_HZ / rate_hz)
    return padded[: len(sound) * RATE_HZ // rate_hz]


def coloured(rng: np.random.Generator, length: int, slope_db: float, low_hz: float) -> Float64:
    """Return noise that falls by ``slope_db`` per octave above ``low_hz``, (length,), power 1."""
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    gain = (np.maximum(hz, low_hz) / low_hz) ** (-slope_db / 6.02) * (hz > 30.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * gain, length)
    return noise / np.sqrt(np.mean(noise**2))


def fan(rng: np.random.Generator, length: int) -> Float64:
    """Return a fan: slowly varying harmonics of its blades, and noise."""
    time = np.arange(length) / RATE_HZ
    wander = 1.0 + 0.004 * np.sin(2 * np.pi * 0.23 * time + 1.0)
    turns = np.cumsum(118.0 * wander) / RATE_HZ
    hum = sum(
        10 ** (-0.2 * k) * np.cos(2 * np.pi * (k * turns + rng.random())) for k in range(1, 13)
    )
    return hum / np.sqrt(np.mean(np.square(hum))) * 0.7 + coloured(rng, length, 4.0, 250.0) * 0.7


def keyboard(rng: np.random.Generator, length: int) -> Float64:
    """Return bursts of typing; each key press and release is a low knock and a click."""
    sound = np.zeros(length)
    decay = np.arange(RATE_HZ // 12) / RATE_HZ
    now = 1.2
    while now < length / RATE_HZ - 0.3:
        for delay, level in ((0.0, 1.0), (rng.uniform(0.07, 0.11), 0.5)):
            click = rng.standard_normal(len(decay)) * np.exp(-decay / 0.004)
            click = np.diff(click, prepend=0.0)  # raise high frequencies
            knock = np.sin(2 * np.pi * rng.uniform(180, 260) * decay) * np.exp(-decay / 0.012)
            first = int((now + delay) * RATE_HZ)
            part = sound[first : first + len(decay)]
            part += (level * rng.uniform(0.6, 1.0) * (click + 0.8 * knock))[: len(part)]
        now += rng.uniform(0.09, 0.24) if rng.random() < 0.86 else rng.uniform(0.9, 1.8)
    return sound / np.sqrt(np.mean(sound**2))


def car(rng: np.random.Generator, length: int, passing_s: float) -> Float64:
    """Return a passing car: tyres and motor, loudest and brightest at ``passing_s``."""
    time = np.arange(length) / RATE_HZ - passing_s
    near = 1.0 / (1.0 + (time / 0.9) ** 2)
    doppler = 1.0 - 0.06 * time / np.sqrt(time**2 + 0.6)
    turns = np.cumsum(74.0 * doppler) / RATE_HZ
    motor = sum(0.7**k * np.sin(2 * np.pi * (k * turns + rng.random())) for k in range(1, 9))
    tyres = coloured(rng, length, 9.0, 300.0) + near * coloured(rng, length, 3.0, 700.0)
    sound = near * (tyres + 0.5 * motor)
    return sound / np.sqrt(np.mean(sound**2))


def demo() -> tuple[Float64, Float64]:
    """Return the whole demo, peak at `PEAK_DB`, and the speech in it, both (n,)."""
    rng = np.random.default_rng(SEED)
    length = round(LENGTH_S * RATE_HZ)
    speech, spoken = np.zeros(length), np.zeros(length, bool)
    for start_s, level_db, voice, words_per_minute, pitch, sentence in SENTENCES:
        sound = 10 ** (level_db / 20) * say(voice, words_per_minute, pitch, sentence)
        first = round(start_s * RATE_HZ)
        sound = sound[: length - first]
        speech[first : first + len(sound)] += sound
        spoken[first : first + len(sound)] = True
    noise = (
        0.9 * fan(rng, length)
        + 0.25 * coloured(rng, length, 1.5, 400.0)
        + 0.55 * keyboard(rng, length)
        + 0.75 * car(rng, length, passing_s=6.6)
    )
    # Speech power without pauses, for the SNR.
    power = np.mean(speech[spoken] ** 2) / np.mean(noise[spoken] ** 2)
    sound = speech + noise * np.sqrt(power / 10 ** (SNR_DB / 10))
    fade = np.minimum(
        1.0, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.02 * RATE_HZ)
    )
    fade *= 10 ** (PEAK_DB / 20) / np.abs(sound * fade).max()
    return sound * fade, speech * fade


def main() -> None:
    """Write the demo."""
    for path, sound in zip((TARGET, SPEECH), demo(), strict=True):
        soundfile.write(path, sound, RATE_HZ, subtype="PCM_16")
        print(f"{path}: {LENGTH_S} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
