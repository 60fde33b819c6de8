"""The view of a running stream: levels, spectrograms, latency and load, in any size of terminal."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray
from rich.cells import chop_cells

from rtsep.cli.report import FLOOR_DB, Report
from rtsep.cli.terminal.bindings import KEYS, Desk
from rtsep.cli.terminal.screen import Line, fitted
from rtsep.dsp.mixer import level_db
from rtsep.realtime.chain import ProcessingChain
from rtsep.realtime.monitor import Bands
from rtsep.spec import Float32

FALL_DB = 1.5
"""Fall of a meter per picture after a peak, in dB."""
LOUDEST_DB, QUIETEST_DB = -10.0, -70.0
"""Levels of a band that are drawn with full brightness and invisible, in dB."""
MOST_NOTICE_ROWS = 3
MOST_ROWS = 8
"""Largest number of rows of a message and of a spectrogram."""
KEPT_COLUMNS = 512
RTF_S = 0.5
"""Time per mark of the load, in seconds."""
_SHADES = np.array(list(" ·░▒▓█"))
_MARKS = "▁▂▃▄▅▆▇█"
_COLOURS = ("white", "green", "cyan", "magenta", "yellow", "blue")
_NAME_CELLS = 8


class View:
    """Draws a stream as lines of text.

    Parameters
    ----------
    report
        Figures of the stream.
    desk
        Key bindings, with the chosen source and open list.
    """

    def __init__(self, report: Report, desk: Desk) -> None:
        self._report, self._desk, self._live = report, desk, report.live
        self._marks: deque[float] = deque(maxlen=KEPT_COLUMNS)
        self._marked = 0.0
        self._before = self._live.busy_s, self._live.separated_s
        self._chain: ProcessingChain | None = None

    def _meet(self, chain: ProcessingChain) -> None:
        """Reset the view for another model or another rate."""
        self._chain = chain
        self._bands = Bands(chain.scope.sample_rate, MOST_ROWS)
        signals = 1 + len(chain.mixer.gains)
        self._levels = np.full(signals, FLOOR_DB)
        self._columns = np.zeros((signals, MOST_ROWS, KEPT_COLUMNS), np.int8)
        self._seen = 0

    def look(self, now_s: float) -> None:
        """Read the newest levels, spectrum and load; call it about 20 times a second."""
        chain = self._live.chain
        if chain is not self._chain:
            self._meet(chain)
        peaks = 20 * np.log10(np.maximum(chain.mixer.peaks(), 1e-9))
        self._levels = np.maximum(np.maximum(peaks, self._levels - FALL_DB), FLOOR_DB)
        if chain.scope.written != self._seen:  # do not scroll while the device is lost
            self._seen = chain.scope.written
            levels = self._bands.levels_db(chain.scope.latest(self._bands.window_length))
            self._columns[:, :, :-1] = self._columns[:, :, 1:]
            self._columns[:, :, -1] = _shade(levels)
        if now_s - self._marked >= RTF_S:
            self._marked = now_s
            busy, separated = self._live.busy_s, self._live.separated_s
            done = separated - self._before[1]
            self._marks.append((busy - self._before[0]) / done if done > 0 else 0.0)
            self._before = busy, separated

    def lines(self, width: int, height: int, notice: str) -> list[Line]:
        """Return at most ``height`` lines of ``width`` cells."""
        head = [self._title(), *self._figures(width)]
        told: list[Line] = [
            [(row, "yellow")] for row in chop_cells(printable(notice), max(width, 2)) or [""]
        ]
        most = max(min(height - len(head) - 1, MOST_NOTICE_ROWS), 1)
        foot: list[Line] = [*told[:most], [("? help  q quit", "dim")]]
        room = max(height - len(head) - len(foot), 0)
        if self._desk.choice is not None:
            body = self._choice()
        elif self._desk.helping:
            body = [[(f"{key.label:8} {key.what}", "")] for key in KEYS]
        else:
            body = self._meters(width)
            rows = min((room - len(body)) // len(self._levels), MOST_ROWS)
            if rows > 0:
                body += self._spectrograms(rows, width)
        blank: list[Line] = [[] for _ in range(room - len(body))]
        return [fitted(line, width) for line in [*head, *body[:room], *blank, *foot][:height]]

    def _title(self) -> Line:
        live, control = self._live, self._desk.control
        line: Line = []
        if live.recorder is not None:
            failed = live.recorder.error is not None
            line.append(("NOT RECORDING " if failed else "● REC ", "bold red"))
        if live.mixer.bypass:
            line.append(("BYPASS ", "bold yellow"))
        if not live.running:
            line.append(("AWAY ", "bold yellow"))
        if control.busy:
            line.append((printable(f"{control.busy}… "), "yellow"))
        line.append((printable(f"{control.loaded.name} on {live.device.name}"), "bold"))
        line.append((f", {live.device.sample_rate} Hz", ""))
        return line

    def _figures(self, width: int) -> list[Line]:
        report, live = self._report, self._live
        stats = live.device.stats()
        marks = list(self._marks)[-max(min(width // 4, 30), 4) :]
        load: Line = [
            (f"RTF {marks[-1] if marks else 0.0:.3f} ", ""),
            ("".join(_MARKS[min(int(8 * mark), 7)] for mark in marks), "green"),
            (f"  p99 {1000 * live.hops.percentile_s(99):.2f} ms", ""),
        ]
        faults = f"xruns {stats.xruns}  misses {stats.starvations}"
        latency: Line = [(report.latency_line(), "")]
        if width >= 72:
            return [latency, [*load, (f"  {faults}", "")]]
        return [latency, load, [(faults, "")]]

    def _meters(self, width: int) -> list[Line]:
        chain = self._live.chain
        if len(chain.mixer.gains) + 1 != len(self._levels):  # the model has changed
            return []
        names = min(_NAME_CELLS, max(width // 5, 3))
        cells = max(width - names - 15, 1)
        alone = chain.mixer.soloed.any()
        lines: list[Line] = []
        for index, name in enumerate(("in", *chain.engine.spec.sources)):
            source = index - 1
            muted = index > 0 and bool(chain.mixer.muted[source])
            soloed = index > 0 and bool(chain.mixer.soloed[source])
            faint = "dim " if muted or (index and alone and not soloed) else ""
            chosen = index > 0 and source == self._desk.chosen
            level = float(self._levels[index])
            filled = round(cells * (1 - min(level, 0.0) / FLOOR_DB))
            label = f"{'▸' if chosen else ' '}{printable(name)[:names]:{names}} "
            line: Line = [
                (label, f"{faint}bold" if chosen else faint),
                ("█" * filled, faint + ("red" if level > -0.1 else _colour(index))),
                ("░" * (cells - filled) + f"{level:4.0f}", faint),
            ]
            if index:
                gain = level_db(float(chain.mixer.gains[source]))
                line += [
                    (f" {gain:+5.0f}" if math.isfinite(gain) else "  -inf", faint),
                    (" M" if muted else "  ", "bold red"),
                    ("S" if soloed else " ", "bold yellow"),
                ]
            lines.append(line)
        return lines + self._faders(names, cells)

    def _faders(self, names: int, cells: int) -> list[Line]:
        lines: list[Line] = []
        for index, fader in enumerate(self._desk.faders):
            chosen = self._desk.chosen == len(self._levels) - 1 + index
            one = fader.control
            filled = round(cells * (fader.value - one.low) / (one.high - one.low))
            label = f"{'▸' if chosen else ' '}{printable(fader.label)[:names]:{names}} "
            lines.append(
                [
                    (label, "bold" if chosen else ""),
                    ("━" * filled, "bold"),
                    ("─" * (cells - filled) + f" {fader.value:5.2f} {fader.name}", "dim"),
                ]
            )
        return lines

    def _spectrograms(self, rows: int, width: int) -> list[Line]:
        lines: list[Line] = []
        for index, bands in enumerate(self._columns):
            # With fewer rows than bands, a row shows its loudest band; the lowest is last.
            groups = reversed(np.array_split(bands[:, -width:], rows))
            lines += [[("".join(_SHADES[g.max(axis=0)]), _colour(index))] for g in groups]
        return lines

    def _choice(self) -> list[Line]:
        choice = self._desk.choice
        assert choice is not None
        lines: list[Line] = [[(f"{choice.title}: Enter chooses, Esc cancels", "bold")]]
        for index, item in enumerate(choice.items()):
            marked = index == choice.place
            number = str(index + 1) if index < 9 else " "
            text = f"{'▸' if marked else ' '}{number} {printable(item)}"
            lines.append([(text, "bold" if marked else "")])
        return lines


def _shade(levels_db: Float32) -> NDArray[np.int8]:
    """Return the index of the shade for each level."""
    share = (levels_db - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB)
    darkest = len(_SHADES) - 1
    shades: NDArray[np.int8] = np.clip(np.ceil(share * darkest), 0, darkest).astype(np.int8)
    return shades


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def printable(text: str) -> str:
    """Replace control characters, which names of files and devices may contain."""
    return "".join(c if c.isprintable() else "?" for c in text)
