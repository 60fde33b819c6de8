"""Mix the output: stems by their gains, or the equally delayed mixture, without clicks.

Controls are plain arrays that any thread may write; the audio path reads them once per call. A
change fades in along a raised cosine. A fade is completed before the next one starts, so the slope
of every gain is bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtsep.dsp.kernel import kernel, named
from rtsep.dsp.overlap_add import LIMIT
from rtsep.spec import Float32, Int64, check_array

Flags = NDArray[np.bool_]

FADE_S = 0.015
"""Duration of every fade, in seconds."""
HIGHEST_GAIN_DB = 24.0
"""Highest gain of a source: more is a slip."""

_POSITION = 0
"""Row of ``cursors``: number of mixture samples so far."""
_FADED = 1
"""Row of ``cursors``: samples of the current fade so far; its length if no fade is active."""
_LATENCY = 2
"""Row of ``cursors``: delay of the stems behind the mixture, in samples."""

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)
_const_stems = types.Array(types.float32, 3, "C", readonly=True)
_gains = types.float32[::1]
_flags = types.boolean[::1]
_cursors = types.int64[::1]


@kernel(types.boolean(_gains, _flags, _flags, _flags, _samples))
def aim(gains: Float32, muted: Flags, soloed: Flags, bypass: Flags, shares: Float32) -> bool:
    """Copy the controls to the target gains; return True if any changed.

    Parameters
    ----------
    gains, muted, soloed
        (sources,); NaN, Inf and excessive gains count as 0.
    bypass
        (1,)
    shares
        (3, sources + 1): gains of the stems and the mixture, before the fade, after it and now.
    """
    sources = gains.size
    alone, new = np.any(soloed), False
    for source in range(sources + 1):
        shares[0, source] = shares[1, source]
        if source == sources:
            share = np.float32(bypass[0])
        elif muted[source] or (alone and not soloed[source]) or not abs(gains[source]) <= LIMIT:
            share = np.float32(0.0)
        else:
            share = gains[source]
        new |= share != shares[1, source]
        shares[1, source] = share
    return new


class Controls(NamedTuple):
    """Arrays that `mix` works on."""

    gains: Float32
    muted: Flags
    soloed: Flags
    bypass: Flags
    """As in `aim`, like ``shares``."""
    fade: Float32
    """(length + 1,) from 0 to 1."""
    line: Float32
    """(capacity, channels): newest samples of the mixture; a power of two above the latency."""
    cursors: Int64
    """(3,)"""
    shares: Float32
    peaks: Float32
    """(1 + sources,): peaks of the mixture and each source; `mix` only raises them."""


CONTROLS = named(
    Controls,
    _gains,
    _flags,
    _flags,
    _flags,
    _gains,
    _samples,
    _cursors,
    _samples,
    _gains,
)


@kernel(types.void(_const_samples, _const_stems, CONTROLS, _samples))
def mix(mixture: Float32, stems: Float32, controls: Controls, out: Float32) -> None:
    """Mix a block and update the peaks.

    Parameters
    ----------
    mixture, stems
        (n, channels) and (n, sources, channels); the stems are delayed.
    out
        (n, out_channels); further channels repeat the last channel of the stems.
    """
    gains, muted, soloed, bypass, fade, line, cursors, shares, peaks = controls
    sources, channels, latency = stems.shape[1], stems.shape[2], cursors[_LATENCY]
    length, mask = fade.size - 1, line.shape[0] - 1
    faded = cursors[_FADED]
    if faded == length and aim(gains, muted, soloed, bypass, shares):
        faded = 0
    now = shares[2]
    for n in range(stems.shape[0]):
        if faded < length:
            faded += 1
            for i in range(sources + 1):
                now[i] = shares[0, i] + fade[faded] * (shares[1, i] - shares[0, i])
            if faded == length:
                for i in range(sources + 1):
                    now[i] = shares[1, i]
        position = cursors[_POSITION]
        cursors[_POSITION] = position + 1
        for channel in range(channels):
            sample = mixture[n, channel]
            if not abs(sample) <= LIMIT:
                sample = np.float32(0.0)
            line[position & mask, channel] = sample
            peaks[0] = max(peaks[0], abs(sample))
            for source in range(sources):
                peaks[1 + source] = max(peaks[1 + source], abs(stems[n, source, channel]))
        dry = now[sources]
        for channel in range(out.shape[1]):
            present = min(channel, channels - 1)
            total = np.float32(0.0)
            if dry < 1.0:
                for source in range(sources):
                    total += now[source] * stems[n, source, present]
            if dry > 0.0:
                late = line[(position - latency) & mask, present]
                total = late if dry == 1.0 else total + dry * (late - total)
            out[n, channel] = total
    cursors[_FADED] = faded


class Mixer:
    """Mixes the stems of one engine, or the equally delayed mixture, to the output.

    Parameters
    ----------
    sources, channels
        Number of stems, and channels of each.
    out_channels
        Channels of the output; further channels repeat the last channel of the stems.
    sample_rate
        In Hz.
    latency
        Delay of the stems behind the mixture, in samples.

    Attributes
    ----------
    controls
        Arrays that the kernel works on.
    gains
        (sources,) float32, linear, initially 1. Any thread may write the elements of this and of
        the following arrays; changes fade in.
    muted, soloed
        (sources,) bool. If any source is soloed, only soloed sources are audible.
    """

    def __init__(
        self, sources: int, channels: int, out_channels: int, sample_rate: int, latency: int
    ) -> None:
        if min(sources, channels, out_channels, sample_rate) < 1 or latency < 0:
            raise ValueError(
                "sources, channels and sample_rate must be 1 or more and latency 0 or more, not "
                f"{sources}, {channels}, {out_channels}, {sample_rate} and {latency}"
            )
        self.gains = np.ones(sources, np.float32)
        self.muted = np.zeros(sources, np.bool_)
        self.soloed = np.zeros(sources, np.bool_)
        self.out_channels = out_channels
        self.latency = latency
        self.controls = Controls(
            self.gains,
            self.muted,
            self.soloed,
            bypass=np.zeros(1, np.bool_),
            fade=raised_cosine(max(1, round(FADE_S * sample_rate))),
            line=np.zeros((1 << latency.bit_length(), channels), np.float32),
            cursors=np.array([0, 0, latency], np.int64),
            shares=np.zeros((3, sources + 1), np.float32),
            peaks=np.zeros(1 + sources, np.float32),
        )
        self.reset()

    @property
    def bypass(self) -> bool:
        """Whether the output is the mixture, delayed like the stems."""
        return bool(self.controls.bypass[0])

    @bypass.setter
    def bypass(self, on: bool) -> None:
        self.controls.bypass[0] = on

    @property
    def heard(self) -> Flags:
        """(sources,): whether each is audible by gain, mute and solo; the bypass is ignored."""
        alone = self.soloed | (not self.soloed.any())
        return np.asarray(~self.muted & alone & (self.gains != 0.0))

    @property
    def settled(self) -> bool:
        """Whether no fade is active."""
        return int(self.controls.cursors[_FADED]) == len(self.controls.fade) - 1

    def process(self, mixture: Float32, stems: Float32, out: Float32) -> Float32:
        """Mix the next samples.

        Parameters
        ----------
        mixture
            (n, channels) float32, C-contiguous. NaN and Inf count as silence.
        stems
            (n, sources, channels) float32, C-contiguous, delayed by ``latency`` samples.
        out
            (n, out_channels) float32, C-contiguous; filled and returned.

        Raises
        ------
        ValueError
            An array has another shape, type or layout.
        """
        n, channels = len(mixture), self.controls.line.shape[1]
        check_array("mixture", mixture, (n, channels))
        check_array("stems", stems, (n, len(self.gains), channels))
        check_array("out", out, (n, self.out_channels))
        mix(mixture, stems, self.controls, out)
        return out

    def peaks(self) -> Float32:
        """Return the peaks of mixture and stems since the last call, (1 + sources,)."""
        peaks = self.controls.peaks
        found = peaks.copy()
        peaks[:] = 0.0
        return found

    def reset(self) -> None:
        """Restart from silence with the current controls; not while another thread mixes."""
        own = self.controls
        own.line[:] = 0.0
        own.peaks[:] = 0.0
        aim(own.gains, own.muted, own.soloed, own.bypass, own.shares)
        own.shares[2] = own.shares[1]
        own.cursors[_POSITION], own.cursors[_FADED] = 0, len(own.fade) - 1


def raised_cosine(length: int) -> Float32:
    """Return a raised cosine from 0 to 1, (length + 1,); its steps are at most pi / (2 length)."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(length + 1) / length)).astype(np.float32)


def level_db(gain: float) -> float:
    """Return the level of a linear gain in dB; -inf for 0."""
    return float(20 * np.log10(gain)) if gain > 0 else -np.inf


def linear(gain_db: float) -> float:
    """Return the linear gain of a level in dB."""
    return float(10 ** (gain_db / 20))
