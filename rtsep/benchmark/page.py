"""The report: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rtsep.benchmark.plots import all_plots

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
figure { margin: 2rem 0; padding: 1rem; background: #fff; color: #000; border-radius: .5rem; }
figure svg { width: 100%; height: auto; }
figcaption { font-weight: 600; }
footer, .note { color: #777; font-size: .85rem; }
"""


def row(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the table row of one model: heading to text."""
    work, paced = result["hop_us"], result["paced"]
    late = result["latency"]
    agree = late["impulse_samples"] == late["correlation_samples"] == late["samples"]
    cells = {
        "model": result["label"],
        "latency ms": f"{late['ms']:.1f}" + ("" if agree else " (not found)"),
        "hop ms": f"{result['hop_ms']:.2f}",
        "p50 µs": f"{work['p50']:.0f}",
        "p99": f"{work['p99']:.0f}",
        "p99.9": f"{work['p99.9']:.0f}",
        "max": f"{work['max']:.0f}",
        "RTF": f"{result['real_time_factor']:.4f}",
        "paced p99.9": f"{paced['work_us']['p99.9']:.0f}",
        "CPU µs": f"{paced['cpu_us']:.0f}",
        "misses": f"{paced['misses']} ({paced['floor_misses']})",
        "of peak": f"{result['roofline']['share_of_peak']:.1%}",
        "start s": f"{result['start']['first_block_s']:.2f}",
        "MB": f"{result['start']['memory_mb']:.0f}",
        "bytes kept": f"{result['allocated_bytes_per_1000_hops']}",
    }
    if "streams" in result:
        streams = result["streams"]
        cells["streams"] = f"{streams['batched']} ({streams['unbatched']})"
    return cells


LEGEND = (
    "latency: algorithmic latency, declared, and measured in the output by impulse and "
    "cross-correlation. p50 to max: time of a block, back to back. RTF: median time over the "
    "duration of the block. paced: at real-time pace; misses: blocks not done when the next was "
    "due, of the model and of an empty loop interleaved with it. of peak: operations of the model "
    "over the peak of a core. start: process start to the first separated block, with the memory "
    "used until then. bytes kept: allocated by 1000 blocks. streams: largest number on one core "
    "with p99.9 below the hop, in one call, and in separate calls."
)


def html(document: Mapping[str, Any]) -> str:
    """Format the measurements of `rtsep.cli.bench` as HTML."""
    results: Sequence[Mapping[str, Any]] = document["results"]
    machine, roof = document["machine"], document["roof"]
    rows = [row(result) for result in results]
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cells.get(name, ''))}</td>" for name in rows[0]) + "</tr>"
        for cells in rows
    )
    figures = "".join(
        f"<figure><figcaption>{escape(heading)}</figcaption>{svg}</figure>"
        for heading, svg in all_plots(results, roof).items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    on = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rtsep bench</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        f"<h1>rtsep bench</h1><p>{escape(on)}. One core: {roof['gflops']:.0f} GFLOP/s, "
        f"{roof['memory_gb_per_s']:.0f} GB/s from memory, {roof['cache_gb_per_s']:.0f} GB/s from "
        f"cache. {escape(document['date'])}.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<p class="note">{escape(LEGEND)}</p>{figures}'
        f"<footer>{escape(versions)}</footer></body></html>\n"
    )
