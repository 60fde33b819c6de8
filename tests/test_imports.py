"""Dependencies point one way, and the runtime needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rtsep"

MAY_IMPORT = {
    "atomic": set(),
    "spec": set(),
    "signature": set(),
    "ring": {"signature"},
    "timeline": {"ring"},
    "realtime": set(),
    "feedback": {"io", "ring", "timeline"},
    "fft": set(),
    "windows": {"spec"},
    "kernels": {"fft", "spec"},
    "polyphase": {"kernels", "signature", "spec"},
    "latency": {"spec"},
    "stft": {"windows", "kernels", "fft", "signature", "spec"},
    "cost": set(),
    "bundle": {"cost", "fft", "windows", "spec"},
    "engine": {"stft", "latency", "kernels", "spec"},
    "mixing": {"kernels", "signature", "spec"},
    "scope": {"ring", "timeline"},
    "turn": {
        *("kernels", "measure", "mixing", "polyphase", "recorder", "resample", "ring", "scope"),
        *("signature", "stft", "tap", "tape", "timeline"),
    },
    "voice": {
        *("engine", "measure", "mixing", "recorder", "resample", "ring", "scope", "tap", "turn"),
    },
    "resample": {"polyphase", "latency", "ring", "signature", "spec"},
    "tape": {"cost", "fft", "signature", "spec"},
    "separator": {"bundle", "fft", "spec", "tape"},
    "measure": {"signature", "spec", "tape"},
    "roofline": {"bundle", "measure", "separator", "spec"},
    "benchmark": {"bundle", "engine", "realtime", "roofline", "separator", "spec", ""},
    "metrics": set(),
    "bss_eval": set(),
    "offline": {"engine", "resample", "spec"},
    "evaluate": {
        *("atomic", "bss_eval", "bundle", "io", "metrics", "offline", "resample"),
        *("separator", "spec", "weights", ""),
    },
    "picture": {"atomic", "spec"},
    "io": {"atomic", "polyphase", "ring", "timeline"},
    "recorder": {"io", "ring", "signature", "spec"},
    "worker": {
        *("io", "latency", "measure", "mixing", "realtime", "recorder", "resample", "ring"),
        *("tap", "turn", "voice"),
    },
    "loaded": {"bundle", "measure", "offline", "resample", "separator"},
    "control": {
        *("io", "loaded", "mixing", "recorder", "voice", "weights", "worker"),
    },
    "tap": {"ring", "signature"},
    "api": {
        *("bundle", "io", "latency", "offline", "resample", "separator", "spec", "weights"),
    },
    "stream": {"api", "io", "latency", "loaded", "spec", "tap", "weights", "worker"},
    "selftest": {"io", "latency", "loaded", "metrics", "ring", "tap", "weights", "worker"},
    "facts": {"io", ""},
    "doctor": {"facts", "io", "realtime", "selftest", "weights"},
    "version": set(),
    "learned": {"atomic", "bundle", "fft", "offline", "spec", "version", "windows"},
    "weights": {"bundle", "learned"},
    "scenes": {"atomic"},
    "ui": {
        *("bundle", "control", "engine", "measure", "mixing", "realtime", "resample", "scope"),
        *("separator", "spec", "weights", ""),
    },
    "nn": {"atomic", "bundle", "separator", "windows", "spec", ""},
    "models": {"atomic", "learned", "nn", "spec"},
    "train": {"atomic", "learned", "models", "nn", "spec"},
    "cli": {
        *("atomic", "benchmark", "bundle", "control", "doctor", "engine", "evaluate", "facts"),
        *("feedback", "io", "latency", "learned", "loaded", "measure", "models", "nn", "offline"),
        *(
            "mixing",
            "picture",
            "realtime",
            "recorder",
            "resample",
            "ring",
            "roofline",
            "scenes",
            "scope",
        ),
        *("separator", "spec", "stream", "train", "ui", "voice", "weights", "worker", ""),
    },
    "__main__": {"cli"},
    "": {"api", "stream", "version"},
}
"""Who may import whom; rooms by their name below ``rtsep``, "" is ``rtsep`` itself."""


def room(module: str) -> str:
    return ([*module.split("."), ""])[1]


def imports(path: Path) -> set[str]:
    """Rooms that a file imports from, its own left out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "rtsep":
                names = [alias.name for alias in node.names]
                is_room = [(PACKAGE / n).is_dir() or (PACKAGE / f"{n}.py").exists() for n in names]
                found |= {n if r else "" for n, r in zip(names, is_room, strict=True)}
            elif node.module and node.module.startswith("rtsep."):
                found.add(room(node.module))
        elif isinstance(node, ast.Import):
            found |= {room(a.name) for a in node.names if a.name.split(".")[0] == "rtsep"}
    return found


def own_room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def test_imports_point_one_way() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports rtsep.{target}"
        for path in PACKAGE.rglob("*.py")
        for target in imports(path) - {own_room(path)} - MAY_IMPORT[own_room(path)]
    }
    assert not wrong


def test_the_table_has_no_circle() -> None:
    left = {name: set(targets) for name, targets in MAY_IMPORT.items()}
    while left:
        free = [name for name, targets in left.items() if not targets & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_the_runtime_does_not_load_torch() -> None:
    code = (
        "import sys, rtsep, rtsep.cli.run, rtsep.cli.separate, rtsep.cli.show, rtsep.cli.export;"
        "import rtsep.cli.evaluate, rtsep.cli.train, rtsep.cli.ui, rtsep.cli.learn;"
        "heavy = ('torch', 'matplotlib', 'pytest', 'pystoi', 'websockets');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_needs_no_sound_card() -> None:
    code = "import sys, rtsep.cli.run; print('sounddevice' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
