"""The four plots of the report, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Result = Mapping[str, Any]
"""One model's part of the JSON, see `rtsep.benchmark.page`."""

TERMS = ("overlap", "reblocking", "lookahead")
CELLS = np.geomspace(0.001, 10.0, 241)
"""Edges of the histogram's cells: time over the hop's duration. The JSON has the counts."""


def histogram(done_s: Any, period_s: float) -> list[int]:
    """Count times in `CELLS`; times beyond them count in the first or last cell."""
    shares = np.clip(np.asarray(done_s) / period_s, CELLS[0], CELLS[-1] * (1 - 1e-9))
    return [int(n) for n in np.histogram(shares, CELLS)[0]]


def thin(done_s: Any, columns: int = 400) -> list[float]:
    """Return the maxima of at most ``columns`` pieces, so every late block stays visible."""
    return [float(piece.max()) for piece in np.array_split(done_s, min(columns, len(done_s)))]


def all_plots(results: Sequence[Result], roof: Mapping[str, float]) -> dict[str, str]:
    """Draw all plots: heading to SVG, in the order of the report."""
    return {
        "Time of a hop, paced at real time": _svg(_distribution, results),
        "Hop time over time": _svg(_over_time, results),
        "Roofline of one core": _svg(_roofline, results, roof),
        "Latency budget": _svg(_latency, results),
    }


def _svg(draw: Callable[..., None], *arguments: Any) -> str:
    # Imported here, because the import takes long and is needed for reports only.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(8.0, 3.6))
    figure.set_layout_engine(ConstrainedLayoutEngine())
    FigureCanvasSVG(figure)  # attaches itself to the figure, without a window or global state
    with rc_context({"svg.hashsalt": "rtsep", "svg.fonttype": "none"}):
        draw(figure, *arguments)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _legend(axes: Any) -> None:
    axes.legend(fontsize=7, loc="best", frameon=False)
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _distribution(figure: Any, results: Sequence[Result]) -> None:
    left, right = figure.subplots(1, 2, sharex=True)
    for k, result in enumerate(results):
        counts = np.array(result["paced"]["histogram"])
        total = max(1, counts.sum())
        left.stairs(counts / total, CELLS, color=f"C{k}", label=result["label"], fill=False)
        beyond = total - np.cumsum(counts)
        # The curve ends at the longest time.
        right.step(CELLS[1:], np.where(beyond > 0, beyond / total, np.nan), color=f"C{k}")
    for axes in (left, right):
        axes.axvline(1.0, color="crimson", linewidth=1.2)
        axes.set_xscale("log")
        axes.set_xlabel("from the block's arrival to its end, over the hop's duration", fontsize=8)
    right.set_yscale("log")
    left.set_ylabel("share of hops", fontsize=8)
    right.set_ylabel("share of hops that take longer", fontsize=8)
    where = right.get_xaxis_transform()
    right.text(1.0, 0.98, " deadline", color="crimson", fontsize=8, va="top", transform=where)
    _legend(left)
    _plain(right)


def _over_time(figure: Any, results: Sequence[Result]) -> None:
    axes = figure.subplots()
    for k, result in enumerate(results):
        series = np.array(result["paced"]["series_us"]) / (1000 * result["period_ms"])
        seconds = np.linspace(0.0, result["paced"]["seconds"], len(series))
        axes.plot(seconds, series, color=f"C{k}", linewidth=0.7, label=result["label"])
    axes.axhline(1.0, color="crimson", linewidth=1.2)
    axes.set_yscale("log")
    axes.set_xlabel("seconds", fontsize=8)
    axes.set_ylabel("largest hop time nearby,\nover the hop's duration", fontsize=8)
    _legend(axes)


def _roofline(figure: Any, results: Sequence[Result], roof: Mapping[str, float]) -> None:
    axes = figure.subplots()
    peak, memory, cache = (roof[k] for k in ("gflops", "memory_gb_per_s", "cache_gb_per_s"))
    intensity = np.geomspace(0.05, 200.0, 100)
    for gb_per_s, name, style in ((memory, "memory", "--"), (cache, "cache", "-")):
        axes.plot(
            intensity,
            np.minimum(peak, gb_per_s * intensity),
            color="0.4",
            linestyle=style,
            linewidth=1.0,
            label=f"roof: {peak:.0f} GFLOP/s, {gb_per_s:.0f} GB/s from {name}",
        )
    for k, result in enumerate(results):
        point = result["roofline"]
        speed = point["flop_per_call"] / (1e3 * point["call_us"])
        axes.plot(
            point["flop_per_call"] / point["bytes_per_call"],
            speed,
            "o",
            color=f"C{k}",
            label=f"{result['label']}: {point['share_of_peak']:.1%} of the peak",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte of weights and state", fontsize=8)
    axes.set_ylabel("GFLOP/s", fontsize=8)
    _legend(axes)


def _latency(figure: Any, results: Sequence[Result]) -> None:
    axes = figure.subplots()
    labels = [result["label"] for result in results][::-1]
    left = np.zeros(len(labels))
    parts = {term: [r["latency"]["terms_ms"][term] for r in results][::-1] for term in TERMS}
    parts["hop itself"] = [result["hop_ms"] for result in results][::-1]
    parts["work, p99.9"] = [r["paced"]["work_us"]["p99.9"] / 1000 for r in results][::-1]
    for name, values in parts.items():
        axes.barh(labels, values, left=left, height=0.55, label=name)
        left += np.array(values)
    axes.set_xlabel("ms", fontsize=8)
    _legend(axes)
