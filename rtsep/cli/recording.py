"""Record seconds of a device, for commands that learn from them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from rich.progress import Progress

from rtsep.devices.open import open_device
from rtsep.errors import DeviceError
from rtsep.runtime.pipeline import BLOCK
from rtsep.spec import Float32

_PATIENCE_S = 5.0  # longest time without a block from the device


def recorded(query: str, seconds: float, progress: Progress) -> tuple[list[Float32], int]:
    """Record from a device.

    Returns
    -------
    list, int
        Blocks (n, channels) of at most `rtsep.runtime.pipeline.BLOCK` samples, and the rate in Hz.

    Raises
    ------
    DeviceError
        The device can't be used, or it stops.
    """
    device = open_device(query)
    rate, block = device.sample_rate, device.block
    task = progress.add_task(f"recording {device.name}", total=seconds)

    def heard() -> Iterator[Float32]:
        left, last = round(seconds * rate), time.monotonic()
        while left > 0 and not (device.finished and device.input.readable < block):
            count = min(device.input.readable // block * block, BLOCK)
            if count:
                piece = np.zeros((count, device.input.width), np.float32)
                device.input.read(piece)
                yield piece[:left]
                left, last = left - count, time.monotonic()
                progress.update(task, completed=seconds - max(left, 0) / rate)
            elif not device.active or time.monotonic() - last > _PATIENCE_S:
                raise DeviceError(f"{device.name} stopped by itself")
            else:
                time.sleep(0.5 * block / rate)

    with device:
        return list(heard()), rate
