"""Write the tables of README and docs from the last measurements.

python -m bench.report [--check]

`bench/results` contains the results of `rtsep bench --json`, `bench.paced`, `bench.peers` and
`bench.growth` on one machine; the pages have marks for their tables. In the table of models, only
the times are written. With ``--check`` nothing is written, and the exit code is 1 if tables and
results differ.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
PAGES = ROOT / "README.md", ROOT / "docs" / "bench.md"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def speed(document: dict[str, Any]) -> str:
    """Return the table of hop times and costs of the models."""
    rows = []
    for result in document["results"]:
        hop, start = result["hop_us"], result["start"]
        rows.append(
            [
                f"`{result['label']}`",
                f"{result['hop_ms']:.1f} ms",
                *(f"{hop[name]:.0f}" for name in ("p50", "p99", "p99.9", "max")),
                f"{result['real_time_factor']:.4f}",
                f"{result['overhead_us']:.0f} µs",
                f"{result['roofline']['share_of_peak']:.1%}",
                f"{start['first_block_s']:.2f} s, {start['memory_mb']:.0f} MB",
            ]
        )
    heads = ["model", "hop", "µs: median", "p99", "p99.9", "max", "RTF", "of it the engine"]
    return table([*heads, "share of the peak", "start to first block"], rows)


def times(document: dict[str, Any], text: str) -> str:
    """Return a table of models with the times of their hops; its other columns stay as they are."""
    heads, _, *rows = ([cell.strip() for cell in row[1:-1].split("|")] for row in text.split("\n"))
    results = {result["label"]: result for result in document["results"]}
    for row in rows:
        result = results[row[0].split("`")[1]]
        row[heads.index("hop")] = f"{result['hop_ms']:.1f} ms"
        for head, us in (("back to back", result["hop_us"]), ("paced", result["paced"]["work_us"])):
            place = heads.index(f"{head}: median, p99")
            row[place] = f"{us['p50'] / 1000:.2f}, {us['p99'] / 1000:.2f} ms"
    return table(heads, rows)


def deadlines(document: dict[str, Any]) -> str:
    """Return the table of misses at real-time pace."""
    rows = [
        [
            f"`{result['model']}`",
            f"{result['blocks']}",
            f"{result['misses']}",
            f"{result['floor_misses']}",
            f"{result['done_us']['p99.9'] / 1000:.2f} of {result['period_ms']:.1f} ms",
        ]
        for result in document["results"]
    ]
    return table(["model", "hops", "missed", "missed by the empty loop", "done, p99.9"], rows)


def side_by_side(document: dict[str, Any]) -> str:
    """Return the table of peers: quality, and the hop in their authors' runtime and in ours."""
    named: dict[str, dict[str, Any]] = {}
    for result in document["results"]:
        named.setdefault(result["name"], {})[result["runtime"]] = result
    rows = []
    for name, runs in named.items():
        own, theirs = runs.get("rtsep"), runs.get("authors")
        best = own or theirs
        assert best is not None
        late = best["latency_ms"]
        quality = [f"{best[key]:.2f}" if key in best else "" for key in ("si_sdri_db", "pesq_wb")]
        hops = [f"{run['hop_us']['p50']:.0f} µs" if run else "" for run in (theirs, own)]
        rows.append(
            [
                f"`{name}`" if theirs is None else name,
                "not live" if late is None else f"{late:.0f} ms",
                *quality,
                f"{best['hop_ms']:.0f} ms",
                *hops,
                f"{best['real_time_factor']:.4f}",
            ]
        )
    heads = ["", "latency", "SI-SDRi dB", "PESQ-WB", "hop", "time in its runtime", "in rtsep"]
    return table([*heads, "RTF"], rows)


def growth(document: dict[str, Any]) -> str:
    """Return the table of exponents."""
    rows = [
        [name, f"{r['sizes'][0]} to {r['sizes'][-1]}", f"{r['us'][0]:.0f} to {r['us'][-1]:.0f} µs",
         f"{r['exponent']:.2f}"]
        for name, r in document["results"].items()
    ]  # fmt: skip
    return table(["what grows", "from, to", "hop", "exponent"], rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "bench": speed,
    "paced": deadlines,
    "peers": side_by_side,
    "growth": growth,
}
"""Functions by the name of the file in `RESULTS` and of the mark in the pages."""
UPDATED: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {"models": ("bench", times)}
"""Files and functions of the tables of which only some columns are written, by their mark."""


def rendered(pages: dict[Path, str], results: Path = RESULTS) -> dict[Path, str]:
    """Return the pages with all marked tables updated.

    Raises
    ------
    ValueError
        A table has no mark, or several.
    """
    pages = dict(pages)
    for name in (*TABLES, *UPDATED):
        split = {path: re.split(f"(<!-- /?{name} -->)", page) for path, page in pages.items()}
        places = [path for path, parts in split.items() if len(parts) > 1]
        if len(places) != 1 or len(split[places[0]]) != 5:
            raise ValueError(f"the table {name!r} must have one place, not {len(places)}")
        file, update = UPDATED.get(name, (name, None))
        document, before = json.loads((results / f"{file}.json").read_text()), split[places[0]][2]
        text = update(document, before.strip()) if update else TABLES[name](document)
        split[places[0]][2] = f"\n\n{text}\n\n"
        pages[places[0]] = "".join(split[places[0]])
    return pages


def main() -> int:
    """Write or check the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    before = {path: path.read_text(encoding="utf-8") for path in PAGES}
    after = rendered(before)
    if arguments.check:
        return int(before != after)
    for path, page in after.items():
        path.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
