"""Read scores of music21's corpus in the public domain, without music21.

Chorales, quartets and sonatas are MusicXML; the tunes of Ryan's Mammoth Collection are ABC, and get
chords and a bass.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from xml.etree import ElementTree

Note = tuple[float, float, int]
"""Onset and length in quarters, and MIDI pitch."""

COMPOSERS = ("bach", "beethoven", "corelli", "handel", "haydn", "joplin", "mozart", "weber")
TUNES = "ryansMammoth"


@dataclass
class Score:
    """A piece of music.

    Attributes
    ----------
    path
        Path below the corpus.
    parts
        Notes of each part.
    quarters
        Quarters per bar, 3 or 4.
    tune
        Whether it is a melody with generated chords.
    """

    path: Path
    parts: list[list[Note]]
    quarters: int = 4
    tune: bool = False

    @property
    def work(self) -> str:
        """Key of the work, shared by its movements; the file for a chorale or tune."""
        single = self.path.parent.name in {*COMPOSERS, TUNES}
        return str(self.path if single else self.path.parent)

    @property
    def length(self) -> float:
        """Length in quarters, of whole bars."""
        end = max(at + length for part in self.parts for at, length, _ in part)
        return self.quarters * max(round(end / self.quarters), 1)


def read_xml(path: Path) -> Score | None:
    """Read MusicXML, plain or zipped; None if it is too short."""
    if path.suffix == ".mxl":
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("xml") and "META-INF" not in n]
            root = ElementTree.fromstring(archive.read(names[0]))
    else:
        root = ElementTree.fromstring(path.read_bytes())
    parts: dict[tuple[int, str], list[Note]] = {}
    for index, part in enumerate(root.iter("part")):
        for staff, note in _xml_notes(part):
            parts.setdefault((index, staff), []).append(note)
    beats, unit = root.findtext(".//time/beats"), root.findtext(".//time/beat-type")
    quarters = 3 if (beats, unit) in {("3", "4"), ("6", "8"), ("3", "2"), ("3", "8")} else 4
    score = Score(path, [sorted(p) for p in parts.values() if len(p) > 10], quarters)
    return score if score.parts and score.length >= 16 else None


def _xml_notes(part: ElementTree.Element) -> Iterator[tuple[str, Note]]:
    now, begun, divisions = 0.0, 0.0, 1.0
    tied: dict[int, tuple[str, float]] = {}
    for measure in part.iter("measure"):
        for item in measure:
            if item.tag == "attributes":
                divisions = float(item.findtext("divisions") or divisions)
            length = float(item.findtext("duration") or 0) / divisions
            if item.tag == "backup":
                now -= length
            elif item.tag == "forward":
                now += length
            elif item.tag == "note" and item.find("grace") is None:
                if item.find("chord") is None:
                    begun, now = now, now + length
                pitch = item.find("pitch")
                if pitch is None:
                    continue
                step = "C D EF G A B".index(pitch.findtext("step") or "C")
                octave = int(pitch.findtext("octave") or 4)
                midi = 12 * (octave + 1) + step + round(float(pitch.findtext("alter") or 0))
                ties = {tie.get("type") for tie in item.findall("tie")}
                staff, onset = tied.pop(midi, ("", begun)) if "stop" in ties else ("", begun)
                staff = staff or item.findtext("staff") or "1"
                if "start" in ties:
                    tied[midi] = staff, onset
                else:
                    yield staff, (onset, begun + length - onset, midi)


ABC_NOTE = re.compile(r"(\(3)|(\[)|(\])|(\|)|([<>])|(\^+|_+|=)?([A-Ga-gzx])([,']*)(\d*)(/*)(\d*)")
MODES = {"": 0, "maj": 0, "mix": -1, "dor": -2, "m": -3, "min": -3, "aeo": -3, "phr": -4, "lyd": 1}
NAMES = "FCGDAEB"


def read_abc(path: Path) -> Score | None:
    """Read the first tune of an ABC file and add chords; None if it is too short."""
    fields: dict[str, str] = {}
    body = ""
    for line in path.read_text("utf-8", "replace").splitlines():
        if re.match("[A-Za-z]:", line):
            if line[0] == "X" and body:
                break
            fields.setdefault(line[0], line[2:].strip())
        else:
            body += re.sub("%.*", "", line)
    body = re.sub(r'"[^"]*"|![^!]*!|\{[^}]*\}|\\|\[[A-Z]:[^]]*\]|\[\d|[~.uvHTMPS]', "", body)
    key = re.match(r"([A-G])([#b]?)\s*([A-Za-z]*)", fields.get("K", ""))
    if key is None:
        return None
    name, sign, mode = key.groups()
    fifths = NAMES.index(name) - 1 + 7 * ((sign == "#") - (sign == "b"))
    fifths += MODES.get(mode.lower()[:3], 0)
    meter = {"C": "4/4", "C|": "4/4"}.get(fields.get("M", "4/4"), fields.get("M", "4/4"))
    quarters = 3 if meter in {"3/4", "6/8", "9/8", "3/8"} else 4
    over, under = fields.get("L", "1/8").split("/")
    tune = list(_abc_notes(body, fifths, 4 * int(over) / int(under)))
    if len(tune) < 40:
        return None
    return Score(path, [tune, *_accompaniment(tune, fifths, quarters)], quarters, True)


def _abc_notes(body: str, fifths: int, unit: float) -> Iterator[Note]:
    signs = {NAMES[i % 7]: 1 for i in range(max(fifths, 0))}
    signs |= {NAMES[-1 - i % 7]: -1 for i in range(max(-fifths, 0))}
    now, triplet, stacked, broken = 0.0, 0, False, 1.0
    local: dict[str, int] = {}
    notes: list[list[float]] = []
    for match in ABC_NOTE.finditer(body):
        three, opening, closing, bar, dotted, sign, letter, marks, times, slashes, by = (
            match.groups()
        )
        if three:
            triplet = 3
        elif opening:
            stacked = True
        elif closing:
            stacked = False
            now = max((note[0] + note[1] for note in notes), default=now)
        elif bar:
            local = {}
        elif dotted and notes:
            longer = 1.5 if dotted == ">" else 0.5
            now += notes[-1][1] * (longer - 1)
            notes[-1][1] *= longer
            broken = 2 - longer
        elif letter:
            length = unit * broken * int(times or 1)
            length /= int(by) if by else 2 ** len(slashes)
            broken = 1.0
            if triplet and not stacked:
                length, triplet = length * 2 / 3, triplet - 1
            if letter not in "zx":
                name = letter.upper()
                if sign:
                    local[name] = {"^": 1, "_": -1, "=": 0}[sign[0]] * len(sign)
                midi = 60 + "C D EF G A B".index(name) + local.get(name, signs.get(name, 0))
                midi += 12 * letter.islower() + 12 * (marks.count("'") - marks.count(","))
                notes.append([now, length, midi])
            if not stacked:
                now += length
    for onset, lasts, pitch in notes:
        yield onset, lasts, int(pitch)


def _accompaniment(tune: list[Note], fifths: int, quarters: int) -> list[list[Note]]:
    """Return chords and bass: in each bar the triad of the key that fits its notes best."""
    scale = [(7 * (fifths + step)) % 12 for step in range(-1, 6)]
    ladder = sorted(scale)
    triads = [[ladder[(i + 2 * j) % 7] for j in range(3)] for i in range(7)]
    usual = [triad for triad in triads if (triad[2] - triad[0]) % 12 == 7]  # major and minor
    end = max(at + length for at, length, _ in tune)
    chords: list[Note] = []
    bass: list[Note] = []
    for bar in range(0, ceil(end), quarters):
        weight = dict.fromkeys(range(12), 0.0)
        for at, length, midi in tune:
            if bar <= at < bar + quarters:
                weight[midi % 12] += length
        triad = max(usual, key=lambda triad: sum(weight[pitch] for pitch in triad))
        for beat in range(quarters):
            low = triad[0] if beat % 2 == 0 or quarters == 3 else triad[2]
            if beat % 2 == 0 if quarters == 4 else beat == 0:
                bass.append((bar + beat, 1.0, 36 + low))
            else:
                chords += [(bar + beat, 0.9, 54 + (pitch - 54) % 12) for pitch in triad]
    return [chords, bass]


def corpus(sources: Path) -> Path:
    """Return the folder of the scores in an unpacked wheel of music21."""
    return sources / "music21" / "music21" / "corpus"


def read(sources: Path) -> list[Score]:
    """Read all readable scores."""
    root = corpus(sources)
    paths = [path for name in COMPOSERS for path in sorted((root / name).rglob("*.*"))]
    scores = []
    for path in (*paths, *sorted((root / TUNES).glob("*.abc"))):
        try:
            if path.suffix in {".mxl", ".xml", ".musicxml"}:
                score = read_xml(path)
            else:
                score = read_abc(path) if path.suffix == ".abc" else None
        except (ElementTree.ParseError, ValueError, KeyError, IndexError) as error:
            print(f"left out: {path.name}: {error}", file=sys.stderr)
            continue
        if score is not None:
            scores.append(score)
    return scores
