"""Check an installation of rtsep: versions, kernels, models, devices, priority, self-test."""

from __future__ import annotations

import getpass
import importlib
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rtsep.devices.portaudio.client import Process
from rtsep.dsp import kernel
from rtsep.errors import DeviceError
from rtsep.version import __version__

FOLDER_HINT = "set NUMBA_CACHE_DIR to a folder that can be written, so that nothing is compiled at "
FOLDER_HINT += "every start"
RUNTIMES = "onnxruntime-gpu", "onnxruntime"
"""Packages of ONNX Runtime; installed together, they break each other."""
DEVICES = "microphone", "loudspeaker"
"""Names of the findings that contain names of devices."""
_PACKAGES = "numpy", "numba", *RUNTIMES, "onnx", "soundfile", "soxr", "sounddevice"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes
    ----------
    name
        Subject of the check.
    text
        Result.
    fix
        How to fix it; empty if there is no problem.
    needed
        Whether it is a problem; otherwise the fix is an improvement.
    """

    name: str
    text: str
    fix: str = ""
    needed: bool = True

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.fix or not self.needed


def examine() -> Iterator[Finding]:
    """Run all checks; yield each finding as soon as it is known."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # report it as a finding
            name = check.__name__.replace("_", " ")
            said = next(iter(str(error).splitlines()), "")
            yield Finding(
                name,
                f"{type(error).__name__}: {said}",
                "install rtsep anew; if that does not help, report this with `rtsep --version`",
            )


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings for JSON, without what names the user, the machine or its devices.

    Paths, the user's and the computer's name are replaced by ``~``, ``USER`` and ``HOST``; of
    microphone and loudspeaker, only rates are kept.
    """
    replaced = [(str(Path.home()), "~")]
    for name, by in ((getpass.getuser(), "USER"), (platform.node(), "HOST")):
        if name:
            replaced.append((rf"(?<!\w){re.escape(name)}(?!\w)", by))

    def plain(finding: Finding) -> dict[str, Any]:
        text = finding.text
        if finding.name in DEVICES and (rates := re.search(r"\d+ Hz; can do .*", text)):
            text = rates[0]
        text = text.replace(*replaced[0])
        text = re.sub(r"(?<![\w~.])(?:/|[A-Za-z]:\\)[^\s,;:]+", "PATH", text)
        for pattern, by in replaced[1:]:
            text = re.sub(pattern, by, text)
        return {"name": finding.name, "ok": finding.ok, "text": text, "fix": finding.fix}

    return {"rtsep": __version__, "findings": [plain(finding) for finding in findings]}


def packages() -> dict[str, str]:
    """Return the versions of the installed packages that rtsep uses, by name."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return Python's version and the platform."""
    return (
        f"Python {platform.python_version()} ({platform.python_implementation()}), "
        f"{platform.system()} {platform.release()}, {platform.machine()}"
    )


def version_text() -> str:
    """Return the text of ``rtsep --version``."""
    from rtsep.devices.portaudio import library

    try:
        sound = library.version()
    except DeviceError:
        sound = "PortAudio is missing"
    listed = ", ".join(f"{name} {number}" for name, number in packages().items())
    return "\n".join((f"rtsep, version {__version__}", machine(), listed, sound))


def versions() -> Iterator[Finding]:
    """Check the required packages."""
    found = packages()
    both = [name for name in RUNTIMES if name in found]
    fix = ""
    if len(both) > 1:
        fix = "pip uninstall onnxruntime onnxruntime-gpu, then install rtsep again: each breaks the"
        fix += " other"
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    yield Finding("versions", f"{machine()}; {listed}", fix)


def kernels() -> Iterator[Finding]:
    """Load the kernels of a live stream; report whether they came from a writable cache."""
    importlib.import_module("rtsep.stream")
    folder = kernel.cache_folder()
    if folder is None:
        yield Finding("numba cache", "there is no folder for it", FOLDER_HINT, needed=False)
        return
    text = f"{len(kernel.COMPILED)} kernels in {folder}"
    if fresh := sum(map(_compiled_now, kernel.COMPILED)):
        text += f", {fresh} of them compiled just now"
    yield Finding("numba cache", text)


def _compiled_now(found: Any) -> bool:
    """Return whether a kernel or C function was compiled, not loaded from the cache."""
    stats = getattr(found, "stats", None)
    return bool(found.cache_hits == 0 if stats is None else sum(stats.cache_misses.values()))


def runtime() -> Iterator[Finding]:
    """Check the providers of ONNX Runtime."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    fix = "" if "CPUExecutionProvider" in providers else "install onnxruntime again"
    text = f"{onnxruntime.__version__}, {', '.join(providers)}; live, the CPU is used"
    yield Finding("ONNX Runtime", text, fix)


def models() -> Iterator[Finding]:
    """Load the shipped models."""
    from rtsep import weights

    names = [weights.find(name).metadata["name"] for name in weights.names()]
    yield Finding("models", ", ".join(names))


def sound() -> Iterator[Finding]:
    """Check PortAudio and the default devices, in a child process, which may hang."""
    process = Process()
    try:
        try:
            yield Finding("PortAudio", process.ask("version").removeprefix("PortAudio "))
        except DeviceError as error:
            text, _, fix = str(error).partition(": ")
            again = "end the sound server (JACK, PulseAudio, PipeWire) and start it again"
            yield Finding("PortAudio", text, fix or again)
            return
        for kind, what in zip(("input", "output"), DEVICES, strict=True):
            try:
                device = process.find(None, kind)
                rates = process.ask("rates", index=device["index"], kind=kind)
            except DeviceError as error:
                fix = f"connect one, or choose a default {kind} in the system's settings; "
                fix += "`rtsep run --device demo` and `rtsep separate` need none"
                yield Finding(what, str(error), fix)
                continue
            own = round(device["default_samplerate"])
            text = f"{device['name']}, {own} Hz; can do {', '.join(map(str, rates)) or 'none'} Hz"
            fix = f"another program may hold it: close that, or name another {kind} device"
            yield Finding(what, text, "" if own in rates else fix)
    finally:
        process.close()


def priority() -> Iterator[Finding]:
    """Check real-time priority and locked memory, in a temporary thread."""
    from rtsep.realtime import scheduling

    if sys.platform != "linux":
        yield Finding("real-time priority", f"not asked for on {sys.platform}")
        return
    granted: list[bool] = []
    thread = threading.Thread(target=lambda: granted.append(scheduling.go_first()))
    thread.start()
    thread.join()
    locked = scheduling.lock_memory()
    if locked:
        scheduling.unlock_memory()
    limits = "put `@audio - {0}` into /etc/security/limits.d/audio.conf, join the group audio "
    limits += "(`sudo usermod -aG audio $USER`), and log in again"
    for name, has, line in (
        ("real-time priority", granted == [True], "rtprio 95"),
        ("locked memory", locked, "memlock unlimited"),
    ):
        text = "granted" if has else "not allowed: other programs may delay the worker"
        yield Finding(name, text, "" if has else limits.format(line), needed=False)


def deep_sleep() -> Iterator[Finding]:
    """Check whether a stream can keep the processor from deep sleep."""
    from rtsep.realtime import power

    if sys.platform != "linux":
        yield Finding("deep sleep", f"not prevented on {sys.platform}")
        return
    with power.awake() as granted:
        text, fix = "is prevented while a stream runs", ""
        if not granted:
            text = "is not prevented: between two hops the processor may take long to wake"
            rule = 'KERNEL=="cpu_dma_latency", GROUP="audio", MODE="0660"'
            fix = f"put `{rule}` into /etc/udev/rules.d/99-audio.rules and start again"
        yield Finding("deep sleep", text, fix, needed=False)


def self_test() -> Iterator[Finding]:
    """Separate three seconds of the demo at real-time pace."""
    from rtsep.diagnostics.selftest import selftest

    yield judged(selftest())


def judged(outcome: Any) -> Finding:
    """Return the finding of a `rtsep.diagnostics.selftest.Outcome`."""
    late = 1000 * outcome.measured / outcome.printed.rate_hz
    text = (
        f"{late:.1f} ms late, {outcome.printed.ms:.1f} printed; {outcome.misses} misses; SI-SDR of "
        f"speech {outcome.improvement_db:+.1f} dB; RTF {outcome.real_time_factor:.3f}"
    )
    fix = ""
    if outcome.measured != outcome.printed.samples or outcome.improvement_db <= 0:
        fix = "install rtsep anew; if that does not help, report this with `rtsep --version`"
    elif outcome.misses:
        fix = "close busy programs, allow real-time priority, take a lighter model "
        fix += "(`--model chandna-speech`) or give the worker more time (`--buffer 30`)"
    return Finding("self-test", text, fix)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    *(versions, kernels, runtime, models, sound, priority, deep_sleep),
    self_test,
)
