"""Models are added from a server, checked, and then known by name; a bad server harms nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtsep import weights
from rtsep.cli.terminal.bindings import Desk
from rtsep.shelf import download as downloading
from rtsep.shelf.table import published
from rtsep.ui.session_worker import Pool
from tests.support import foreign, models
from tests.support.command import refused, rtsep
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE_S
from tests.support.publisher import Publisher, publish


@pytest.fixture
def server() -> Iterator[Publisher]:
    with publish() as publisher:
        publisher.files["gtcrn_simple.onnx"] = foreign.spectrum().SerializeToString()
        publisher.files["model_1.onnx"] = foreign.masker().SerializeToString()
        publisher.files["model_2.onnx"] = foreign.mapper().SerializeToString()
        yield publisher


@pytest.fixture
def shelf(server: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of added models, with a table of the server's."""
    table = server.table(
        tmp_path / "table.toml", gtcrn=["gtcrn_simple.onnx"], dtln=["model_1.onnx", "model_2.onnx"]
    )
    monkeypatch.setenv("RTSEP_SHELF", str(table))
    monkeypatch.setenv("RTSEP_MODELS", str(tmp_path / "shelf"))
    monkeypatch.setattr(downloading, "PAUSE_S", 0.01)
    monkeypatch.setattr(downloading, "PIECE", 100)
    return tmp_path / "shelf"


def left(shelf: Path) -> list[str]:
    """Files in the folder, without the lock."""
    return sorted(p.name for p in shelf.rglob("*") if p.is_file() and p.name != ".lock")


def test_two_commands_lead_to_another_model(shelf: Path) -> None:
    for command in (
        "models add gtcrn",
        "run --model gtcrn --device demo --seconds 1 --realtime off",
    ):
        done = rtsep(*command.split())
        assert done.exit_code == 0 and "gtcrn" in done.stdout
    assert "separated, RTF" in done.stdout


def test_an_added_model_is_listed_used_and_removed(shelf: Path, tmp_path: Path) -> None:
    before = rtsep("models").output
    assert "by Somebody, not by rtsep; licence MIT; 0.0 MB; latency 32 ms" in " ".join(
        before.split()
    )
    for name in ("gtcrn", "dtln"):
        result = rtsep("models", "add", name)
        assert result.exit_code == 0, result.output
        told, added, *_ = result.output.splitlines()
        assert told.startswith(f"{name}: a test") and added.startswith(f"{name} is added")
    assert left(shelf) == ["dtln.md", "dtln.onnx", "gtcrn.md", "gtcrn.onnx"]
    assert "can add" not in rtsep("models").output
    assert weights.find("gtcrn").spec.sources == ("speech", "noise")
    assert {"gtcrn", "speech"} <= set(Pool().names)
    assert rtsep("info", "gtcrn").exit_code == 0
    assert rtsep("models", "remove", "gtcrn").exit_code == 0
    assert left(shelf) == ["dtln.md", "dtln.onnx"]
    assert "no model 'gtcrn' was added" in refused("models", "remove", "gtcrn")
    assert "part of rtsep" in refused("models", "remove", "speech")


def test_the_view_in_a_terminal_offers_added_models(shelf: Path) -> None:
    rtsep("models", "add", "gtcrn")
    desk = Desk(SimpleNamespace(switch_model=None), str, str)  # type: ignore[arg-type]
    desk.model("m")
    assert desk.choice is not None and "gtcrn" in desk.choice.items()


def test_a_cut_download_goes_on(shelf: Path, server: Publisher) -> None:
    server.faults = ["cut", "cut"]
    assert rtsep("models", "add", "gtcrn").exit_code == 0
    assert [bool(asked) for asked in server.requests] == [False, True, True]


def test_a_cut_download_goes_on_at_the_next_command(shelf: Path, server: Publisher) -> None:
    server.faults = ["cut"] * downloading.ATTEMPTS
    assert "cut" in refused("models", "add", "gtcrn").splitlines()[-1]
    assert not list(shelf.glob("*.onnx"))
    server.requests.clear()
    assert rtsep("models", "add", "gtcrn").exit_code == 0
    assert server.requests[0].startswith("bytes=")
    assert left(shelf) == ["gtcrn.md", "gtcrn.onnx"]


def test_a_server_without_ranges_starts_again(shelf: Path, server: Publisher) -> None:
    server.ranges, server.faults = False, ["cut"]
    assert rtsep("models", "add", "gtcrn").exit_code == 0


BAD = {
    "html": (["html"], "is a web page"),
    "error": (["error"], "404"),
    "endless": (["endless"], "more than the"),
    "slow": (["slow"], "too slow"),
    "silent": (["silent"] * downloading.ATTEMPTS, "no answer"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_server_leaves_nothing(
    fault: str, shelf: Path, server: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "SILENT_S", 0.3)
    monkeypatch.setattr(downloading, "SLOW_S", 0.3)
    monkeypatch.setattr(downloading, "PIECE", 1)
    faults, words = BAD[fault]
    server.faults = [*faults]
    sentence = refused("models", "add", "gtcrn")
    assert words in sentence and server.address in sentence
    assert not left(shelf)


def test_another_file_than_the_published_one_is_refused(shelf: Path, server: Publisher) -> None:
    content = server.files["gtcrn_simple.onnx"]
    server.files["gtcrn_simple.onnx"] = content[:-1] + bytes([content[-1] ^ 1])
    assert "another SHA-256" in refused("models", "add", "gtcrn")
    assert not left(shelf)


def test_an_address_is_added_and_checked(shelf: Path, server: Publisher) -> None:
    address = f"{server.address}/gtcrn_simple.onnx"
    assert "another SHA-256" in refused("models", "add", address, "--sha256", "0" * 64)
    assert rtsep("models", "add", address, "--as", "theirs").exit_code == 0
    assert weights.added() == ["theirs"]
    server.files["page"] = b"<!DOCTYPE html><title>x</title>"
    assert "is a web page" in refused("models", "add", f"{server.address}/page")
    assert "not an address" in refused("models", "add", "ftp://127.0.0.1/x.onnx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in refused("models", "add", f"http://127.0.0.1:{port}/x.onnx")
    assert left(shelf) == ["theirs.md", "theirs.onnx"]


def test_offline_asks_no_server(shelf: Path, server: Publisher, tmp_path: Path) -> None:
    assert "--offline" in refused("models", "add", "gtcrn", "--offline")
    path = foreign.save(foreign.spectrum(), tmp_path / "theirs.onnx")
    assert rtsep("models", "add", path, "--offline").exit_code == 0
    assert not server.requests


def test_files_are_added(shelf: Path, tmp_path: Path) -> None:
    own = models.write(models.handmade(), tmp_path / "own.onnx")
    assert rtsep("models", "add", own).exit_code == 0
    parts = [foreign.save(foreign.masker(), tmp_path / "1.onnx")]
    parts += [foreign.save(foreign.mapper(), tmp_path / "2.onnx")]
    assert rtsep("models", "add", ",".join(map(str, parts)), "--as", "two").exit_code == 0
    assert weights.added() == ["own", "two"]
    assert "there already" in refused("models", "add", own)
    assert "shipped model" in refused("models", "add", own, "--as", "speech")
    assert "not a valid name" in refused("models", "add", own, "--as", "../x")
    assert "neither a file" in refused("models", "add", "nothing")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    assert "not an ONNX file" in refused("models", "add", tmp_path / "bad.onnx")
    assert weights.added() == ["own", "two"]


def test_a_damaged_added_model_is_named(shelf: Path) -> None:
    shelf.mkdir()
    (shelf / "bad.onnx").write_bytes(b"nothing")
    result = rtsep("models")
    assert result.exit_code == 0 and "bad.onnx is not a valid bundle" in result.stderr
    assert "speech" in result.stdout


def test_two_processes_wait_for_each_other(shelf: Path) -> None:
    command = [sys.executable, "-m", "rtsep", "models", "add", "gtcrn"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both: list[Any] = [
        subprocess.Popen(command, env=env, text=True, stdout=-1, stderr=-1) for _ in range(2)
    ]
    ended = sorted((process.wait(PATIENCE_S), process.communicate()[1]) for process in both)
    assert [code for code, _ in ended] == [0, 2] and "there already" in ended[1][1]


def test_the_own_table_is_pinned_and_from_secure_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RTSEP_SHELF", raising=False)
    rows = published()
    assert {"gtcrn", "ul-unas", "dtln", "deepfilternet"} <= rows.keys()
    for row in rows.values():
        assert row.licence and row.author and 0 < row.latency_ms < 100
        for file in row.files:
            assert file.url.startswith("https://") and len(file.sha256) == 64
            assert np.log2(file.bytes) > 10
