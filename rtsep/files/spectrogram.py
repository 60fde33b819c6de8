"""Draw spectrograms of a mixture and its stems, one above the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsep.files.atomic import replacing
from rtsep.spec import Float32

WINDOW_S = 0.04
"""Length of the analysis window: it resolves harmonics and syllables of a voice."""
RANGE_DB = 80.0
"""Range of the colour scale below the loudest cell of all panels."""
_COLUMNS, _ROWS = 1000, 160  # slightly fewer than the pixels of a panel
_WINDOWS = 2  # analysed per column at most, so an hour costs as much as a minute
_TICKS_KHZ = (0.2, 0.5, 1, 2, 4, 8, 16, 32, 64)


def spectrograms(
    path_png: str | Path, signals: Mapping[str, Float32], rate_hz: int, title: str
) -> None:
    """Draw one panel per signal, with shared axes and colours, into a PNG file.

    Parameters
    ----------
    path_png
        Path of the PNG file, replaced atomically.
    signals
        Name to (n,) or (n, channels) float32; shorter signals end with silence. The power is
        averaged over the first two channels. Signals longer than a minute are subsampled.
    rate_hz
        Sample rate of all signals.
    title
        Title above the first panel.
    """
    # Imported here, because the import takes long and the live stream does not need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not signals or not all(len(signal) for signal in signals.values()):
        raise ValueError(f"each signal must have samples: {[*map(len, signals.values())]}")
    length = max(len(signal) for signal in signals.values())
    top_hz = rate_hz / 2
    levels = {name: _levels_db(signal, rate_hz, length) for name, signal in signals.items()}
    loudest = max(float(level.max()) for level in levels.values())

    figure = Figure(figsize=(11, 0.9 + 1.75 * len(levels)), dpi=120)
    figure.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.03, hspace=0.02))
    FigureCanvasAgg(figure)  # attaches itself to the figure, without a window or global state
    panels = figure.subplots(len(levels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    ticks = [khz for khz in _TICKS_KHZ if khz * 1000 <= top_hz]
    for panel, (name, level) in zip(panels, levels.items(), strict=True):
        image = panel.imshow(
            level,
            origin="lower",
            aspect="auto",
            interpolation="auto",
            extent=(0.0, length / rate_hz, 0.0, float(_mel(top_hz))),
            vmin=loudest - RANGE_DB,
            vmax=loudest,
            cmap="magma",
        )
        panel.set_yticks([float(_mel(khz * 1000)) for khz in ticks], [f"{khz:g}" for khz in ticks])
        panel.tick_params(labelsize=8, length=2.5)
        panel.set_ylabel("kHz", fontsize=9)
        panel.text(
            0.008,
            0.93,
            name,
            transform=panel.transAxes,
            va="top",
            fontsize=10,
            fontweight="bold",
            color="white",
            bbox={"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 2.5},
        )
        panel.spines[:].set_visible(False)
    panels[-1].set_xlabel("time in s", fontsize=9)
    bar = figure.colorbar(image, ax=list(panels), pad=0.01, aspect=18 * len(levels), fraction=0.03)
    bar.set_label("level in dB re full scale", fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2.5)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=12, fontweight="bold")

    with replacing(Path(path_png)) as part:
        figure.savefig(part, format="png")


def _mel(hz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mel scale: linear at low frequencies, logarithmic above (O'Shaughnessy 1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def _levels_db(signal: Float32, rate_hz: int, length: int) -> Float32:
    """Return the power of each cell in dB, (rows, columns); a full-scale sine is 0 dB.

    Parameters
    ----------
    signal
        (n,) or (n, channels).
    rate_hz
        Sample rate of the signal.
    length
        Samples of all columns together; the signal is followed by silence.
    """
    sound = signal.reshape(len(signal), -1)[:, :2]
    size = 1 << max(5, round(np.log2(WINDOW_S * rate_hz)))
    window = np.hanning(size + 1)[:size].astype(np.float32)
    scale = (2.0 / float(window.sum())) ** 2
    columns = max(1, min(_COLUMNS, length // (size // 8)))
    width = length / columns
    heard = max(1, min(_WINDOWS, round(width / (size // 4))))
    bins_hz = np.fft.rfftfreq(size, 1 / rate_hz)
    rows_hz = 700.0 * (10.0 ** (np.linspace(0.0, float(_mel(rate_hz / 2)), _ROWS) / 2595.0) - 1.0)
    # A row of several bins shows the loudest one, so that every harmonic is visible.
    edges_hz = np.append((rows_hz[1:] + rows_hz[:-1]) / 2, rate_hz / 2)
    starts = np.searchsorted(bins_hz, np.append(0.0, edges_hz[:-1])).clip(0, len(bins_hz) - 1)
    spread = np.diff(np.append(starts, len(bins_hz))) > 1

    levels = np.empty((_ROWS, columns), np.float32)
    offsets = np.arange(size) - size // 2
    for column in range(columns):
        centres = np.round((column + (np.arange(heard) + 0.5) / heard) * width).astype(np.int64)
        times = centres[:, None] + offsets  # (heard, size)
        inside = (times >= 0) & (times < len(sound))
        segments = sound[times.clip(0, len(sound) - 1)]  # (heard, size, channels)
        segments = np.where(inside[:, :, None], segments, 0.0).transpose(0, 2, 1)
        spectra = np.fft.rfft(np.nan_to_num(segments) * window)
        power = (spectra.real**2 + spectra.imag**2).mean(axis=(0, 1)) * scale
        peaks = np.maximum.reduceat(power, starts)
        levels[:, column] = np.where(spread, peaks, np.interp(rows_hz, bins_hz, power))
    return np.asarray(10.0 * np.log10(levels + 1e-14), np.float32)
