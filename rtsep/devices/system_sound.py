"""The sound of the system as an input: what other programs play, in place of a microphone.

On PulseAudio and PipeWire, ``pactl`` creates a sink without a loudspeaker, to which other programs
play meanwhile. Its monitor is the input, and the former default sink the output, so the separated
sound does not come back as input. macOS and Windows need a driver, which is searched by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rtsep.devices import pulse
from rtsep.devices.portaudio.library import find
from rtsep.errors import DeviceError

SYSTEM = "system"
"""Name of this input as a device."""
DRIVERS = {
    "darwin": ("BlackHole", "BlackHole (brew install blackhole-2ch)"),
    "win32": ("CABLE Output WASAPI", "VB-Cable (https://vb-audio.com/Cable)"),
}
"""Query for the driver's input, and the driver's name and address, by platform."""
_NAME = "rtsep-system"


@contextmanager
def system_sound() -> Iterator[str]:
    """Take the sound of other programs for the duration of the ``with`` block.

    Enter it before anything else uses PortAudio, and open the device inside.

    Yields
    ------
    The device, as a query for `rtsep.devices.portaudio.library.find`.

    Raises
    ------
    DeviceError
        There is no sound server or driver, or another program of rtsep does the same.
    """
    if sys.platform in DRIVERS:
        query, driver = DRIVERS[sys.platform]
        try:
            found = find(query, "input")
        except DeviceError as error:
            raise DeviceError(
                f"the sound of the system needs {driver}: install it, choose it as the output of "
                "the system, and name your headphones with --output"
            ) from error
        yield str(found["index"])
        return
    if pulse.in_use(_NAME):
        raise DeviceError("another rtsep has the sound of the system already")
    speaker, sink = pulse.pactl("get-default-sink"), f"{_NAME}.{os.getpid()}"
    with pulse.null_sink(sink, _NAME):
        try:
            _play_to(sink)
            output = os.environ.get("PULSE_SINK") or speaker
            with pulse.devices(output, f"{sink}.monitor") as device:
                yield device
        finally:
            with suppress(DeviceError):  # the server has ended
                _play_to(speaker)


def _play_to(sink: str) -> None:
    """Make a sink the default, also of the programs that play already."""
    pulse.pactl("set-default-sink", sink)
    for line in pulse.pactl("list", "short", "sink-inputs").splitlines():
        with suppress(DeviceError):  # it has ended, or may not be moved
            pulse.pactl("move-sink-input", line.split()[0], sink)
