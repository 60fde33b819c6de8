"""A sound server of PulseAudio without a sound card."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pulse import Env


def _missing() -> str | None:
    for program in ("pulseaudio", "pactl", "parec"):
        if not shutil.which(program):
            return f"{program} is not installed (Debian, Ubuntu: apt install pulseaudio)"
    if not list(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        return "ALSA has no way to PulseAudio (Debian, Ubuntu: apt install libasound2-plugins)"
    if not ctypes.util.find_library("portaudio"):
        return "PortAudio is not installed (Debian, Ubuntu: apt install libportaudio2)"
    return None


@pytest.fixture
def server() -> Iterator[Env]:
    """Run a sound server of our own, with one sink; the value is the environment of its clients."""
    if reason := _missing():
        assert os.environ.get("CI") != "true", reason
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:  # a short path: it holds a socket
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        for name in ("PULSE_SERVER", "PULSE_SINK", "PULSE_SOURCE"):
            env.pop(name, None)
        options = "-n --daemonize=no --exit-idle-time=-1 --use-pid-file=no --disallow-exit"
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        loads = ["--load=module-native-protocol-unix", "--load=module-null-sink sink_name=speaker"]
        process = subprocess.Popen(["pulseaudio", *options.split(), *loads], env=env, **quiet)
        try:
            for _ in range(100):
                if not subprocess.run(["pactl", "info"], env=env, check=False, **quiet).returncode:
                    break
                time.sleep(0.1)
            else:
                assert os.environ.get("CI") != "true", "pulseaudio does not start"
                pytest.skip("pulseaudio does not start")
            yield env
        finally:
            process.terminate()
            process.wait(20)
