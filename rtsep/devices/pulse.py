"""PulseAudio and PipeWire by ``pactl``: devices that exist as long as a program runs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rtsep.devices.portaudio.library import find
from rtsep.errors import DeviceError

PULSE = "pulse, ALSA"
"""PortAudio's device of PulseAudio and PipeWire."""


def pactl(*arguments: str) -> str:
    """Run ``pactl`` and return its output.

    Raises
    ------
    DeviceError
        It is missing, or the server refuses or does not answer.
    """
    try:
        done = subprocess.run(
            ["pactl", *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except FileNotFoundError as error:
        raise DeviceError(
            "the sound of other programs needs pactl, of PulseAudio or PipeWire: install it "
            "(Debian, Ubuntu: apt install pulseaudio-utils)"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise DeviceError(f"pactl {' '.join(arguments[:2])} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"pactl {' '.join(arguments[:2])} does not answer") from error
    return done.stdout.strip()


@contextmanager
def module(name: str, *arguments: str) -> Iterator[None]:
    """Load a module of the server for the duration of the ``with`` block."""
    number = pactl("load-module", name, *arguments)
    try:
        yield
    finally:
        with suppress(DeviceError):  # the server has ended, and its modules with it
            pactl("unload-module", number)


@contextmanager
def null_sink(name: str, description: str) -> Iterator[None]:
    """Create a sink without a loudspeaker for the duration of the ``with`` block."""
    properties = f"sink_properties=device.description={description}"
    with module("module-null-sink", f"sink_name={name}", properties):
        yield


@contextmanager
def devices(sink: str, source: str) -> Iterator[str]:
    """Let this program, and those it starts, play to ``sink`` and record from ``source``.

    Yields
    ------
    The device, as a query for `rtsep.devices.portaudio.library.find`.

    Raises
    ------
    DeviceError
        PortAudio does not know the server.
    """
    chosen = {"PULSE_SINK": sink, "PULSE_SOURCE": source}
    before = {key: os.environ.get(key) for key in chosen}
    os.environ.update(chosen)
    try:
        try:
            find(PULSE, "output")
        except DeviceError as error:
            raise DeviceError(
                "PortAudio has no way to the sound server: install it (Debian, Ubuntu: apt install "
                "libasound2-plugins)"
            ) from error
        yield PULSE
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def in_use(name: str) -> bool:
    """Return whether a running program has devices of this name; remove those of a killed one.

    Sinks are named ``NAME.PID``, sources ``NAME`` with that sink as their master.
    """
    for line in pactl("list", "short", "modules").splitlines():
        number, _, rest = line.partition("\t")
        owner = re.search(rf"_name={re.escape(name)}[. ](?:master={re.escape(name)}\.)?(\d+)", rest)
        if owner is None:
            continue
        if Path(f"/proc/{owner[1]}").exists():
            return True
        with suppress(DeviceError):  # the source is removed with its sink
            pactl("unload-module", number)
    return False
