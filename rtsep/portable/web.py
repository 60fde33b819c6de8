"""A page that separates the microphone inside the browser, in a folder for any static host."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from rtsep.errors import ExtraError, SpecError
from rtsep.files.atomic import replacing
from rtsep.portable.graph import Portable

VERSION = "1.30.0"
"""Version of onnxruntime-web, the ONNX Runtime for browsers."""
RUNTIME = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""Its files that the page needs, with their SHA-256."""

_OWN = Path(__file__).parent / "static"
_PANEL = Path(__file__).parents[1] / "ui/static"
_FILES = {
    **{path.name: path for path in sorted(_OWN.iterdir()) if path.name != "sw.js"},
    **{name: _PANEL / name for name in ("icon.svg", "style.css", "wav.js")},
}


def runtime(folder: Path | None = None) -> Path:
    """Return the folder with the files of `RUNTIME`; fetched by npm once, then kept.

    Parameters
    ----------
    folder
        Folder of the package onnxruntime-web as npm unpacks it; then nothing is fetched.

    Raises
    ------
    ExtraError
        npm is missing or can't fetch the package, or the files are of another version.
    """
    kept = platformdirs.user_cache_path("rtsep") / f"onnxruntime-web-{VERSION}"
    if folder is not None:
        kept = folder / "dist"
    elif not all((kept / name).exists() for name in RUNTIME):
        _fetch(kept)
    for name, digest in RUNTIME.items():
        path = kept / name
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ExtraError(f"{path} is not that of onnxruntime-web {VERSION}")
    return kept


def _fetch(target: Path) -> None:
    """Let npm fetch the package, and keep the files that are needed."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExtraError(
            f"the page needs onnxruntime-web {VERSION}: install npm, or unpack that package and "
            "name its folder with --runtime"
        )
    with TemporaryDirectory(prefix="rtsep-") as folder:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        packed = [*Path(folder).glob("*.tgz")]
        if done.returncode or not packed:
            reason = next(iter(done.stderr.splitlines()), "it wrote nothing")[:200]
            raise ExtraError(f"npm can't fetch onnxruntime-web {VERSION}: {reason}")
        with tarfile.open(packed[0]) as archive:
            for name in RUNTIME:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                with replacing(target / name) as part:
                    part.write_bytes(member.read())


def write(portable: Portable, name: str, licence: str, runtime: Path, folder: Path) -> int:
    """Write the page to a folder; return the number of bytes.

    Parameters
    ----------
    portable
        Graph of one channel.
    name, licence
        Of the model, for the page.
    runtime
        See `runtime`.
    folder
        Folder of the page.

    Raises
    ------
    SpecError
        The graph has more than one channel.
    OSError
        The files can't be written.
    """
    if portable.channels != 1:
        raise SpecError(
            f"the page separates one channel, but the model {portable.channels} channels jointly"
        )
    files = {path: source.read_bytes() for path, source in _FILES.items()}
    files |= {f"ort/{file}": (runtime / file).read_bytes() for file in RUNTIME}
    files["model.onnx"] = portable.model.SerializeToString()
    figures = {
        "name": name,
        "licence": licence,
        "sources": portable.spec.sources,
        "sample_rate": portable.spec.sample_rate,
        "block": portable.block,
        "state": portable.state_size,
        "latency_samples": portable.latency_samples,
    }
    files["model.json"] = json.dumps(figures, indent=1).encode()
    digest = hashlib.sha256(b"".join(files[path] for path in sorted(files))).hexdigest()
    worker = (_OWN / "sw.js").read_text(encoding="utf-8")
    worker = worker.replace("@VERSION@", f"rtsep-{digest[:16]}")
    listed = json.dumps(["./", *sorted(files)])
    files["sw.js"] = worker.replace("@FILES@", listed).encode()
    for path, content in files.items():
        with replacing(folder / path) as part:
            part.write_bytes(content)
    return sum(map(len, files.values()))
