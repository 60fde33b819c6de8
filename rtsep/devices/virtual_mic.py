"""A virtual microphone: other programs record the output of `rtsep run`.

On PulseAudio and PipeWire, ``pactl`` creates a sink without a loudspeaker and a named source that
is its monitor, and removes both at the end. macOS and Windows need a driver, which is searched by
name.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rtsep.devices.portaudio.library import find
from rtsep.errors import DeviceError

DEFAULT = "rtsep"
DRIVERS = {
    "darwin": ("BlackHole", "BlackHole (brew install blackhole-2ch)"),
    "win32": ("CABLE Input WASAPI", "VB-Cable (https://vb-audio.com/Cable)"),
}
"""Query for the driver's output, and the driver's name and address, by platform."""
_PULSE = "pulse, ALSA"  # PortAudio's device of PulseAudio and PipeWire


@contextmanager
def virtual_mic(name: str = DEFAULT) -> Iterator[str]:
    """Create a virtual microphone for the duration of the ``with`` block.

    Enter it before anything else uses PortAudio, and open the output inside.

    Parameters
    ----------
    name
        Name of the microphone: letters, digits, ``_``, ``-`` and ``.``. With a driver, the name is
        that of the driver.

    Yields
    ------
    The output device to play to, as a query for `rtsep.devices.device.find`.

    Raises
    ------
    DeviceError
        There is no sound server or driver, or the name is invalid or in use.
    """
    if sys.platform in DRIVERS:
        query, driver = DRIVERS[sys.platform]
        try:
            found = find(query, "output")
        except DeviceError as error:
            raise DeviceError(
                f"a virtual microphone needs {driver}: install it, and choose it as the microphone "
                "of the other program"
            ) from error
        yield str(found["index"])
        return
    if not re.fullmatch(r"[\w.-]{1,60}", name, re.ASCII):
        raise DeviceError(f"{name!r} is not a valid name: use letters, digits, '_', '-' and '.'")
    _remove_stale(name)
    sink = f"{name}.{os.getpid()}"
    # Keep the default source: the server may make the new one its default.
    chosen = {"PULSE_SINK": sink, "PULSE_SOURCE": _pactl("get-default-source")}
    before = {key: os.environ.get(key) for key in chosen}
    modules: list[str] = []
    try:
        modules.append(
            _pactl(
                "load-module",
                "module-null-sink",
                f"sink_name={sink}",
                f"sink_properties=device.description={name}-output",
            )
        )
        modules.append(
            _pactl(
                "load-module",
                "module-remap-source",
                f"source_name={name}",
                f"master={sink}.monitor",
                f"source_properties=device.description={name}",
            )
        )
        os.environ.update(chosen)
        try:
            find(_PULSE, "output")
        except DeviceError as error:
            raise DeviceError(
                "PortAudio has no way to the sound server: install it (Debian, Ubuntu: apt install "
                "libasound2-plugins)"
            ) from error
        yield _PULSE
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        for module in reversed(modules):
            with suppress(DeviceError):  # the server has ended, and its modules with it
                _pactl("unload-module", module)


def _remove_stale(name: str) -> None:
    """Remove modules of this name that a killed program left; reject a name in use."""
    for line in _pactl("list", "short", "modules").splitlines():
        module, _, rest = line.partition("\t")
        owner = re.search(rf"_name={re.escape(name)}[. ](?:master={re.escape(name)}\.)?(\d+)", rest)
        if owner is None:
            continue
        if Path(f"/proc/{owner[1]}").exists():
            raise DeviceError(
                f"there is a virtual microphone {name!r} already: choose another name with "
                "--virtual-mic NAME"
            )
        with suppress(DeviceError):  # the source is removed with its sink
            _pactl("unload-module", module)


def _pactl(*arguments: str) -> str:
    """Run ``pactl`` and return its output."""
    try:
        done = subprocess.run(
            ["pactl", *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except FileNotFoundError as error:
        raise DeviceError(
            "a virtual microphone needs pactl, of PulseAudio or PipeWire: install it (Debian, "
            "Ubuntu: apt install pulseaudio-utils)"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise DeviceError(f"pactl {' '.join(arguments[:2])} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"pactl {' '.join(arguments[:2])} does not answer") from error
    return done.stdout.strip()
