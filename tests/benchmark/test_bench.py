"""`rtsep bench`: the figures it gives are measured, and its report is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench import report
from rtsep.benchmark import page, plots, streams, trials
from rtsep.benchmark.roofline import traffic
from rtsep.cli import main
from tests.support import models
from tests.support.browser import chromium
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """What one short run wrote: JSON, the report's path, the terminal's text."""
    folder = tmp_path_factory.mktemp("bench")
    bundle = models.write(models.chandna()[1].graph, folder / "tiny.onnx")
    files = [folder / "report.json", folder / "report.html"]
    command = ["bench", str(bundle), "--seconds", "0.3", "--block", "16", "--block", "24"]
    command += ["--streams", "2", "--json", str(files[0]), "--html", str(files[1])]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(files[0].read_text()), files[1], done.output


def test_all_is_measured(measured: tuple[Any, Path, str]) -> None:
    document = measured[0]
    hop, odd = document["results"]
    assert document["machine"]["versions"]["numpy"] == np.__version__
    for result in (hop, odd):
        assert 0 < result["hop_us"]["p50"] <= result["hop_us"]["p99.9"] <= result["hop_us"]["max"]
        assert result["paced"]["misses"] <= result["paced"]["calls"]
        assert sum(result["paced"]["histogram"]) == result["paced"]["calls"]
        assert result["start"]["first_block_s"] > 0.05
        assert 30 < result["start"]["memory_mb"] < 2000
        assert result["allocated_bytes_per_1000_hops"] <= 2048
        late = result["latency"]
        assert late["impulse_samples"] == late["correlation_samples"] == late["samples"]
        assert 0 < result["roofline"]["share_of_peak"] < 1
    assert hop["latency"]["samples"] == 64 - 16 + 16
    assert odd["latency"]["samples"] == hop["latency"]["samples"] + 16 - 8
    assert hop["overhead_us"] < hop["hop_us"]["p50"] and odd["overhead_us"] is None
    assert 0 <= hop["streams"]["batched"] <= 2 and "streams" not in odd
    assert hop["streams"]["batched_tries"][0]["streams"] == 1


def test_the_terminal_shows_a_table(measured: tuple[Any, Path, str]) -> None:
    text = measured[2]
    for word in ("block 16", "block 24", "RTF", "misses", "bytes kept"):
        assert word in text


def test_the_report_is_one_file_with_four_plots(measured: tuple[Any, Path, str]) -> None:
    text = measured[1].read_text()
    assert text.count("<figure>") == text.count("<svg") == 4
    assert "block 24" in text and "tiny, block 16" in text
    for outside in ("<script", '<link rel="stylesheet', "@import", "src="):
        assert outside not in text


@pytest.mark.device
def test_the_report_opens_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page.html(json.loads((ROOT / "bench/results/bench.json").read_text())))
    with chromium(tmp_path, tmp_path / "none.wav") as browser:
        browser.open(path.as_uri())
        assert browser.ask("document.querySelectorAll('figure svg').length") == 4
        sizes = browser.ask("[...document.querySelectorAll('figure svg')].map(e => e.clientHeight)")
        assert min(sizes) > 200
        for k in range(4):  # something is drawn in each
            count = f"document.querySelectorAll('figure svg')[{k}].querySelectorAll('path').length"
            assert browser.ask(count) > 10
        assert browser.problems == []
        (tmp_path / "report.png").write_bytes(browser.screenshot())


def test_the_tables_are_those_of_the_last_measurement() -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in report.PAGES}
    assert report.rendered(pages) == pages, "python -m bench.report"
    stale = {
        path: page.replace("| `speech` |", "| `speech` | 1", 1) for path, page in pages.items()
    }
    assert report.rendered(stale) == pages


def test_a_table_has_one_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in ("", "<!-- bench -->\n<!-- /bench -->" * 2):
        with pytest.raises(ValueError, match="'bench' must have one place"):
            report.rendered({page: text})


def test_a_hostile_name_is_only_text() -> None:
    result = {"label": "<script>alert(1)</script>"}
    assert "<script" not in page.html(_document(result))


def _document(changes: dict[str, Any]) -> dict[str, Any]:
    us = dict.fromkeys(trials.PERCENTILES, 10.0)
    result = {
        "label": "x", "hop_ms": 8.0, "period_ms": 8.0, "hop_us": us, "real_time_factor": 0.1,
        "allocated_bytes_per_1000_hops": 0,
        "latency": {"samples": 8, "impulse_samples": 8, "correlation_samples": 8, "ms": 1.0,
                    "terms_ms": {"overlap": 1.0, "reblocking": 0.0, "lookahead": 0.0}},
        "paced": {"seconds": 1.0, "calls": 2, "misses": 0, "floor_misses": 0, "work_us": us,
                  "cpu_us": 1.0, "histogram": plots.histogram([0.001, 0.002], 0.008),
                  "series_us": [1.0, 2.0]},
        "roofline": {"flop_per_call": 100, "bytes_per_call": 100, "call_us": 1.0,
                     "share_of_peak": 0.1},
        "start": {"first_block_s": 1.0, "memory_mb": 100.0},
    }  # fmt: skip
    return {
        "machine": {"processor": "p", "cores": 2, "system": "s", "versions": {"numpy": "2"}},
        "roof": {"gflops": 100.0, "memory_gb_per_s": 20.0, "cache_gb_per_s": 50.0},
        "date": "2026-01-01",
        "results": [{**result, **changes}],
    }


def test_a_slow_call_is_a_miss() -> None:
    """The paced loop, with a call that takes longer than the period every fourth time."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            trials.time.sleep(0.03)

    run = trials._paced(call, 0.02, 20)
    assert trials.misses(run, 0.02) >= 5
    quick = trials._paced(lambda: None, 0.02, 10)
    assert np.all(quick.done_s >= quick.late_s) and np.all(quick.late_s >= 0)


@pytest.mark.parametrize(("fits", "limit", "found"), [(0, 64, 0), (1, 64, 1), (13, 64, 13),
                                                      (100, 64, 64), (8, 8, 8)])  # fmt: skip
def test_the_search_finds_the_most_streams(fits: int, limit: int, found: int) -> None:
    def carry(bundle: Any, count: int, seconds: float) -> streams.Load:
        assert count <= limit
        return streams.Load(count, count <= fits, {})

    loads = streams.most(None, limit, 0.0, carry)  # type: ignore[arg-type]
    assert streams.largest(loads) == found
    assert len(loads) <= 2 * np.log2(limit) + 2


def test_traffic_counts_weights_and_states() -> None:
    bundle = models.bundle()
    weights, _ = bundle.cost()
    assert traffic(bundle) == 4 * (weights + models.SPEC.window_length)


def test_what_can_not_be_measured_is_said(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, sentence in (
        (["nothing-such"], "neither a file nor a shipped model"),
        (["chandna-speech", "--seconds", "0.1", "--json", str(tmp_path)], "is a directory"),
        (["chandna-speech", "--seconds", "0.1", "--device", "no such device"], "rtsep run"),
    ):
        done = runner.invoke(main, ["bench", *arguments])
        assert done.exit_code == 2 and sentence in done.output, done.output
        assert "Traceback" not in done.output
