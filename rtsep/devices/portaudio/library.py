"""PortAudio in this process: find devices and open streams with the native callback."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes.util import find_library
from typing import Any, Literal

from rtsep.errors import DeviceError

Kind = Literal["input", "output"]

COMMON_RATES_HZ = 16000, 44100, 48000, 96000
JACK = "JACK Audio Connection Kit"
"""PortAudio's name of JACK's host API."""
_NO_START_SERVER = 1
"""Option of ``jack_client_open``."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard output of native code, such as warnings of ALSA and JACK."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # there is no standard error
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
    """Import sounddevice, which initialises PortAudio."""
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
        PortAudio's index (a number or its digits), a part of ``"name, host API"`` in any case, or
        None for the system's default.
    kind
        ``"input"`` or ``"output"``.

    Returns
    -------
    dict
        PortAudio's description: ``index``, ``name``, ``max_input_channels``,
        ``default_samplerate`` (Hz) and so on.

    Raises
    ------
    DeviceError
        No device matches, or more than one.
    """
    sounddevice = _portaudio()
    if isinstance(query, str) and query.strip().isdecimal():
        query = int(query)
    try:
        found: dict[str, Any] = sounddevice.query_devices(query, kind)
    except ValueError as error:  # its first line has the query
        raise DeviceError(str(error).splitlines()[0].rstrip(":")) from error
    except sounddevice.PortAudioError as error:
        asked = f"there is no default {kind} device" if query is None else f"no device {query!r}"
        raise DeviceError(asked) from error
    if found[f"max_{kind}_channels"] < 1:
        raise DeviceError(f"device {query!r} ({found['name']}) has no {kind}")
    return found


def full_name(device: dict[str, Any]) -> str:
    """Return a device's name with its host API, which `find` matches to this device only."""
    return f"{device['name']}, {_portaudio().query_hostapis(device['hostapi'])['name']}"


def period(device: dict[str, Any]) -> int:
    """Return the samples per callback that JACK's server prescribes; 0 with other host APIs.

    PortAudio does not tell it, so a short-lived client of JACK asks for it.
    """
    path = find_library("jack") if full_name(device).endswith(JACK) else None
    if path is None:
        return 0
    jack = ctypes.CDLL(path)
    jack.jack_client_open.restype = ctypes.c_void_p
    jack.jack_client_open.argtypes = ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p
    jack.jack_get_buffer_size.argtypes = jack.jack_client_close.argtypes = (ctypes.c_void_p,)
    with _quiet():
        client = jack.jack_client_open(b"rtsep", _NO_START_SERVER, None)
        if client is None:
            return 0
        samples = int(jack.jack_get_buffer_size(client))
        jack.jack_client_close(client)
    return samples


def names(kind: Kind) -> list[str]:
    """Return the full names of the devices of a kind."""
    devices = _portaudio().query_devices()
    return [full_name(device) for device in devices if device[f"max_{kind}_channels"]]


def listing() -> str:
    """Return the devices, one per line; ``>`` marks the default input and ``<`` the output."""
    return str(_portaudio().query_devices()) or "no audio devices"


def _checked(device: dict[str, Any], kind: Kind, channels: int, sample_rate: int) -> int:
    """Check that the device supports the settings; return its index."""
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


def version() -> str:
    """Return PortAudio's version text.

    Raises
    ------
    DeviceError
        PortAudio is missing.
    """
    return str(_portaudio().get_portaudio_version()[1])


def rates(device: dict[str, Any], kind: Kind) -> list[int]:
    """Return the rates in Hz, of `COMMON_RATES_HZ` and the default, that the device supports."""
    found = []
    for rate in sorted({*COMMON_RATES_HZ, round(device["default_samplerate"])}):
        with suppress(DeviceError), _quiet():
            _checked(device, kind, 1, rate)
            found.append(rate)
    return found


def refresh() -> None:
    """Restart PortAudio, which lists devices at its start only. No stream may be open."""
    sounddevice = _portaudio()
    with _quiet(), suppress(sounddevice.PortAudioError):
        sounddevice._terminate()
        sounddevice._initialize()


def end() -> None:
    """Terminate PortAudio; no stream may be open."""
    sounddevice = sys.modules.get("sounddevice")
    if sounddevice is not None:
        with _quiet(), suppress(sounddevice.PortAudioError):
            sounddevice._terminate()


class Stream:
    """A PortAudio stream that calls the native callback.

    Parameters
    ----------
    input, output
        Devices as in `find`. Without ``microphone``, the input is not opened.
    sample_rate
        In Hz.
    in_channels, out_channels
        Channels of each input and output sample.
    block
        Samples per callback.
    userdata
        Address of the callback's record; the memory must outlive the stream.
    microphone
        Whether an input is opened.
    own_clock_hz
        Rate of an input with its own clock; 0 if input and output are one device.

    Attributes
    ----------
    name
        Names of the devices.
    latency_s
        Latency of input and output in seconds, as PortAudio reports it.

    Raises
    ------
    DeviceError
        There is no such device, or it does not support these settings.
    """

    def __init__(
        self,
        input: int | str | None,
        output: int | str | None,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        userdata: int,
        *,
        microphone: bool = True,
        own_clock_hz: int = 0,
    ) -> None:
        from rtsep.devices.callback import callback, listen  # not to find devices

        speaker = find(output, "output")
        played = _checked(speaker, "output", out_channels, sample_rate)
        self.name = str(speaker["name"])
        self.streams: list[Any] = []
        # PortAudio delays the output by a block of a given length, even one of JACK's own.
        length = 0 if block == period(speaker) else block

        def add(kind: str, device: Any, channels: Any, called: Any, rate: int) -> Any:
            sounddevice = _portaudio()
            try:
                # sounddevice's only class with native callbacks.
                stream = sounddevice._StreamBase(
                    kind,
                    samplerate=rate,
                    blocksize=length,
                    device=device,
                    channels=channels,
                    dtype="float32",
                    latency="low",
                    callback=sounddevice._ffi.cast("PaStreamCallback*", called.address),
                    userdata=sounddevice._ffi.cast("void*", userdata),
                )
            except sounddevice.PortAudioError as error:
                self.close()
                raise DeviceError(
                    f"{self.name} cannot be opened at {rate} Hz in blocks of {block}: {error}"
                ) from error
            self.streams.append(stream)
            return stream.latency

        if not microphone:
            told = 0.0, add("output", played, out_channels, callback, sample_rate)
        else:
            microphone_rate = own_clock_hz or sample_rate
            device = find(input, "input")
            heard = _checked(device, "input", in_channels, microphone_rate)
            self.name = f"{device['name']} → {self.name}"
            if own_clock_hz:
                told = (
                    add("input", heard, in_channels, listen, own_clock_hz),
                    add("output", played, out_channels, callback, sample_rate),
                )
            else:
                both = heard, played
                told = add("duplex", both, (in_channels, out_channels), callback, sample_rate)
        self.latency_s: tuple[float, float] = tuple(told)

    @property
    def active(self) -> bool:
        """Whether the device calls the callback; False after it was lost."""
        return all(bool(stream.active) for stream in self.streams)

    def start(self) -> None:
        """Start the stream; once per object."""
        try:
            for stream in self.streams:
                stream.start()
        except _portaudio().PortAudioError as error:
            raise DeviceError(f"{self.name} does not start: {error}") from error

    def close(self) -> None:
        """Close the stream; takes minutes after a sound server died."""
        while self.streams:
            self.streams.pop().close()
