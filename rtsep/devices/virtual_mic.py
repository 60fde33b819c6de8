"""A virtual microphone: other programs record the output of `rtsep run`.

On PulseAudio and PipeWire, ``pactl`` creates a sink without a loudspeaker and a named source that
is its monitor, and removes both at the end. macOS and Windows need a driver, which is searched by
name.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rtsep.devices import pulse
from rtsep.devices.portaudio.library import find
from rtsep.errors import DeviceError

DEFAULT = "rtsep"
DRIVERS = {
    "darwin": ("BlackHole", "BlackHole (brew install blackhole-2ch)"),
    "win32": ("CABLE Input WASAPI", "VB-Cable (https://vb-audio.com/Cable)"),
}
"""Query for the driver's output, and the driver's name and address, by platform."""


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
    if pulse.in_use(name):
        raise DeviceError(
            f"there is a virtual microphone {name!r} already: choose another name with "
            "--virtual-mic NAME"
        )
    sink = f"{name}.{os.getpid()}"
    # Keep the default source: the server may make the new one its default.
    source = os.environ.get("PULSE_SOURCE") or pulse.pactl("get-default-source")
    with (
        pulse.null_sink(sink, f"{name}-output"),
        pulse.module(
            "module-remap-source",
            f"source_name={name}",
            f"master={sink}.monitor",
            f"source_properties=device.description={name}",
        ),
        pulse.devices(sink, source) as device,
    ):
        yield device
