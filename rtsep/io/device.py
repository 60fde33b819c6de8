"""The sound card: find it, and exchange its blocks with two rings from a native callback."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from rtsep.io.callback import callback
from rtsep.io.exchange import Exchange, Stats
from rtsep.ring import Float32
from rtsep.timeline import Timeline

Kind = Literal["input", "output"]

_PATIENCE = 2.0
"""Seconds a stream may take to close: with a sound server that died, PortAudio waits minutes."""
_abandoned: list[Any] = []


class DeviceError(ValueError):
    """A device that cannot be used as asked; the message is one sentence with what was asked."""


class Device(Protocol):
    """What a worker needs of a device; `Duplex` and `rtsep.io.clock.Clock` are two."""

    name: str
    sample_rate: int
    block: int
    headroom: int
    input: Timeline
    output: Timeline

    @property
    def active(self) -> bool:
        """Whether blocks are being exchanged; false once a device has gone away."""

    @property
    def finished(self) -> bool:
        """Whether the whole source has been handed over; never without a source."""

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a device."""

    def stop(self) -> None:
        """End it, and close what was opened; may be repeated."""

    def replace_late(self, latency: int) -> None:
        """Play the mixture, as late, where answers of this latency are missing."""

    def leave_out(self, n: int, latency: int) -> None:
        """Give up the next ``n`` answers, whose latency is given."""

    def stats(self) -> Stats:
        """Read the counters."""

    def peaks(self) -> tuple[float, float]:
        """Largest absolute input and output value since the last call."""

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what native code prints: ALSA and JACK complain about what they merely try."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no standard error to protect
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _portaudio() -> Any:
    """Import sounddevice, which initialises PortAudio; only what needs a device does."""
    if "sounddevice" in sys.modules:
        return sys.modules["sounddevice"]
    try:
        with _quiet():
            import sounddevice
    except OSError as error:
        raise DeviceError(
            "the PortAudio library is missing: install it (Debian, Ubuntu: apt install "
            "libportaudio2)"
        ) from error
    except Exception as error:
        raise DeviceError(f"PortAudio did not start: {error}") from error
    return sounddevice


def find(query: int | str | None, kind: Kind) -> dict[str, Any]:
    """Find one device.

    Parameters
    ----------
    query
        PortAudio's index (a number or its digits), or a part of ``"name, host API"`` in any case,
        or None for the system's default.
    kind
        What it must be able to do.

    Returns
    -------
    dict
        PortAudio's description: ``index``, ``name``, ``max_input_channels``,
        ``default_samplerate`` (Hz) and so on.

    Raises
    ------
    DeviceError
        If there is none or more than one.
    """
    sounddevice = _portaudio()
    if isinstance(query, str) and query.strip().isdecimal():
        query = int(query)
    try:
        found: dict[str, Any] = sounddevice.query_devices(query, kind)
    except ValueError as error:  # its first line says which devices do not or doubly match
        raise DeviceError(str(error).splitlines()[0].rstrip(":")) from error
    except sounddevice.PortAudioError as error:
        asked = f"there is no default {kind} device" if query is None else f"no device {query!r}"
        raise DeviceError(asked) from error
    if found[f"max_{kind}_channels"] < 1:
        raise DeviceError(f"device {query!r} ({found['name']}) has no {kind}")
    return found


def listing() -> str:
    """List the devices, one per line; ``>`` marks the default input and ``<`` the output."""
    return str(_portaudio().query_devices()) or "no audio devices"


def _checked(device: dict[str, Any], kind: Kind, channels: int, sample_rate: int) -> int:
    """Refuse what the device cannot do; return its index."""
    sounddevice = _portaudio()
    most = device[f"max_{kind}_channels"]
    if channels > most:
        raise DeviceError(f"{device['name']} has {most} {kind} channels, not {channels}")
    check = getattr(sounddevice, f"check_{kind}_settings")
    try:
        check(device["index"], channels, "float32", samplerate=sample_rate)
    except sounddevice.PortAudioError as error:
        raise DeviceError(
            f"{device['name']} has no {kind} of {channels} channels at {sample_rate} Hz: {error}"
        ) from error
    index: int = device["index"]
    return index


def _close(stream: Any, memory: Any) -> None:
    """Close a stream, or leave it and what its callback writes to alone if it cannot be closed."""
    closing = threading.Thread(target=stream.close, name="rtsep close", daemon=True)
    closing.start()
    closing.join(_PATIENCE)
    if closing.is_alive():
        _abandoned.append(memory)
        atexit.unregister(_portaudio()._exit_handler)  # it would wait for the same stream


class Duplex(Exchange):
    """A PortAudio stream between two rings, by a native callback.

    Parameters
    ----------
    input, output
        Devices as in `find`. With a source the input is not opened.
    sample_rate
        In Hz.
    in_channels, out_channels
        Channels of each input and output sample.
    block
        Samples per callback.
    headroom
        Samples of silence in the output ring at the start: the time the worker has for a block,
        and exactly the latency the rings add.
    source
        (n, in_channels) float32 that is played once in place of the input, then silence.
    passthrough
        Copy input to output in the callback and leave the rings alone: the machine's own floor.
    latency
        What to ask of the device's own buffers: ``"low"``, ``"high"`` or seconds.

    Raises
    ------
    DeviceError
        If there is no such device, or it cannot do what is asked.
    """

    def __init__(
        self,
        input: int | str | None,
        output: int | str | None,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        source: Float32 | None = None,
        *,
        passthrough: bool = False,
        latency: Literal["low", "high"] | float = "low",
    ) -> None:
        super().__init__(
            sample_rate,
            in_channels,
            out_channels,
            block,
            headroom,
            source,
            microphone=source is None,
            passthrough=passthrough,
        )
        sounddevice = _portaudio()
        speaker = find(output, "output")
        device: Any = _checked(speaker, "output", out_channels, sample_rate)
        channels: Any = out_channels
        self.name = str(speaker["name"])
        if source is None:
            microphone = find(input, "input")
            device = _checked(microphone, "input", in_channels, sample_rate), device
            channels = in_channels, out_channels
            self.name = f"{microphone['name']} → {self.name}"
        try:
            # The only class of sounddevice that takes a native callback.
            self._stream = sounddevice._StreamBase(
                "output" if source is not None else "duplex",
                samplerate=sample_rate,
                blocksize=block,
                device=device,
                channels=channels,
                dtype="float32",
                latency=latency,
                callback=sounddevice._ffi.cast("PaStreamCallback*", callback.address),
                userdata=sounddevice._ffi.cast("void*", self.userdata),
            )
        except sounddevice.PortAudioError as error:
            raise DeviceError(
                f"{self.name} cannot be opened at {sample_rate} Hz in blocks of {block}: {error}"
            ) from error
        # The stream holds addresses into these: whatever happens, it is closed before they go.
        memory = self.input, self.output, self._control
        self._close = weakref.finalize(self, _close, self._stream, memory)
        self._close.atexit = False  # sounddevice closes what is open then; no thread can start

    @property
    def active(self) -> bool:
        """Whether blocks are being exchanged; false once the device has gone away."""
        return self._close.alive and bool(self._stream.active)

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a stream."""
        sounddevice = _portaudio()
        try:
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise DeviceError(f"{self.name} does not start: {error}") from error

    def stop(self) -> None:
        """Drop what is not yet played and close the stream; may be repeated."""
        self._close()

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms, as PortAudio tells it."""
        told = self._stream.latency
        heard, played = (0.0, told) if self._has_source else told
        return {
            "device input": round(heard * self.sample_rate),
            "headroom": self.headroom,
            "device output": round(played * self.sample_rate),
        }
