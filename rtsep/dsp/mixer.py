"""What is heard: stems by their gains, or the mixture as late as they are, without a click.

Controls are plain arrays that any thread writes; the audio path looks at them once per call. A
change is faded in along a raised cosine, and a fade that has begun is completed before the next
one begins: the slope of every gain is bounded, whatever is done to the controls.
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
"""Row of ``cursors``: mixture samples so far."""
_FADED = 1
"""Row of ``cursors``: samples of the present fade so far; as many as it has when all is settled."""
_LATENCY = 2
"""Row of ``cursors``: samples by which the stems are later than the mixture."""

_samples = types.Array(types.float32, 2, "C")
_const_samples = types.Array(types.float32, 2, "C", readonly=True)
_const_stems = types.Array(types.float32, 3, "C", readonly=True)
_gains = types.float32[::1]
_flags = types.boolean[::1]
_cursors = types.int64[::1]


@kernel(types.boolean(_gains, _flags, _flags, _flags, _samples))
def aim(gains: Float32, muted: Flags, soloed: Flags, bypass: Flags, shares: Float32) -> bool:
    """Take over what the controls say; tell whether that is anything new.

    Parameters
    ----------
    gains, muted, soloed
        (sources,); a gain that is no number of sensible size is taken for 0.
    bypass
        (1,)
    shares
        (3, sources + 1): of each stem, and last of the mixture, before the fade, after it and now.
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
    """What `mix` works on."""

    gains: Float32
    muted: Flags
    soloed: Flags
    bypass: Flags
    """As of `aim`, like ``shares``."""
    fade: Float32
    """(length + 1,) from 0 to 1."""
    line: Float32
    """(capacity, channels), the newest samples of the mixture; a power of two above the latency."""
    cursors: Int64
    """(3,)"""
    shares: Float32
    peaks: Float32
    """(1 + sources,): of the mixture and each source; raised, never lowered."""


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
    """Mix a block into what is heard, and keep the largest absolute values.

    Parameters
    ----------
    mixture, stems
        (n, channels) and (n, sources, channels), which are late.
    out
        (n, out_channels); a channel that the stems lack repeats their last one.
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
                now[:] = shares[1]
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
    """Mixes the stems of one engine, and the mixture as late as they are, into what is heard.

    Parameters
    ----------
    sources, channels
        Of the stems.
    out_channels
        Of what is heard; a channel that the stems lack repeats their last one.
    sample_rate
        In Hz.
    latency
        Samples by which the stems are later than the mixture.

    Attributes
    ----------
    controls
        What the kernel works on.
    gains
        (sources,) float32, linear; 1 at first. This and what follows may be written by any thread,
        element by element, and is faded in.
    muted, soloed
        (sources,) bool. Where any source is soloed, only such sources are heard.
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
        """Whether the mixture is heard, as late as the stems, in their place."""
        return bool(self.controls.bypass[0])

    @bypass.setter
    def bypass(self, on: bool) -> None:
        self.controls.bypass[0] = on

    @property
    def heard(self) -> Flags:
        """(sources,): whether each is heard, by its gain, mute and solo; the bypass aside."""
        alone = self.soloed | (not self.soloed.any())
        return np.asarray(~self.muted & alone & (self.gains != 0.0))

    @property
    def settled(self) -> bool:
        """Whether no fade is going on."""
        return int(self.controls.cursors[_FADED]) == len(self.controls.fade) - 1

    def process(self, mixture: Float32, stems: Float32, out: Float32) -> Float32:
        """Mix the next samples.

        Parameters
        ----------
        mixture
            (n, channels) float32, C-contiguous. What is no sound, NaN and Inf, is taken for
            silence.
        stems
            (n, sources, channels) float32, C-contiguous, `latency` samples late.
        out
            (n, out_channels) float32, C-contiguous; filled and returned.

        Raises
        ------
        ValueError
            If an array does not fit.
        """
        n, channels = len(mixture), self.controls.line.shape[1]
        check_array("mixture", mixture, (n, channels))
        check_array("stems", stems, (n, len(self.gains), channels))
        check_array("out", out, (n, self.out_channels))
        mix(mixture, stems, self.controls, out)
        return out

    def peaks(self) -> Float32:
        """(1 + sources,) largest absolute value of mixture and stems since the last call."""
        peaks = self.controls.peaks
        found = peaks.copy()
        peaks[:] = 0.0
        return found

    def reset(self) -> None:
        """Start from silence, settled where the controls are; not while another thread mixes."""
        own = self.controls
        own.line[:] = 0.0
        own.peaks[:] = 0.0
        aim(own.gains, own.muted, own.soloed, own.bypass, own.shares)
        own.shares[2] = own.shares[1]
        own.cursors[_POSITION], own.cursors[_FADED] = 0, len(own.fade) - 1


def raised_cosine(length: int) -> Float32:
    """(length + 1,) from 0 to 1; no step is larger than pi / (2 length)."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(length + 1) / length)).astype(np.float32)


def level_db(gain: float) -> float:
    """Of a linear gain; -inf for 0."""
    return float(20 * np.log10(gain)) if gain > 0 else -np.inf


def linear(gain_db: float) -> float:
    """Of a gain in dB."""
    return float(10 ** (gain_db / 20))
