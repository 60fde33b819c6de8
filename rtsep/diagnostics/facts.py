"""What a copy of rtsep is made of: the facts a report of a fault needs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from rtsep.errors import DeviceError
from rtsep.version import __version__

RUNTIMES = "onnxruntime-gpu", "onnxruntime"
"""Packages that bring ONNX Runtime: installed side by side, each breaks the other."""
_PACKAGES = "numpy", "numba", *RUNTIMES, "onnx", "soundfile", "soxr", "sounddevice"


def packages() -> dict[str, str]:
    """Versions of the installed packages that rtsep runs on, by name."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Python and the platform."""
    return (
        f"Python {platform.python_version()} ({platform.python_implementation()}), "
        f"{platform.system()} {platform.release()}, {platform.machine()}"
    )


def text() -> str:
    """What ``rtsep --version`` prints."""
    from rtsep.devices.portaudio import library

    try:
        sound = library.version()
    except DeviceError:
        sound = "PortAudio is missing"
    listed = ", ".join(f"{name} {number}" for name, number in packages().items())
    return "\n".join((f"rtsep, version {__version__}", machine(), listed, sound))
