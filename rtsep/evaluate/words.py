"""Word error rate: how well a recogniser understands speech before and after separation.

Substitutions, deletions and insertions over the words of the text, all mixtures together, counted
by the package ``jiwer``. The recogniser is PocketSphinx with the English model in its package.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from rtsep.errors import EvaluationError, ExtraError
from rtsep.evaluate.folder import Item
from rtsep.evaluate.score import is_speech, silent
from rtsep.spec import Float32

Recogniser = Callable[[Float32, int], str]
"""Takes (n,) samples of one channel and their rate in Hz, returns the words."""

TABLES = "list.csv", "transcripts.csv"
"""Files beside the mixtures that may have a column ``text``; the first that knows a text counts."""
VERSIONS = "clean", "mixture", "estimate"
"""Versions of a source that are recognised."""
RATE_HZ = 16000
"""Of the recogniser's model."""


@dataclass(frozen=True)
class Heard:
    """One source of one mixture: its text, and the words recognised in each version of it.

    ``errors`` has the number of wrong words by version.
    """

    item: str
    source: str
    text: str
    words: int
    clean: str
    mixture: str
    estimate: str
    errors: dict[str, int]


@dataclass(frozen=True)
class WordErrors:
    """Word error rates of one source, 0 for none, over ``words`` words of all mixtures."""

    words: int
    clean: float
    mixture: float
    estimate: float


class Words:
    """Recognise the speech of one mixture after the other and count the wrong words.

    Parameters
    ----------
    texts
        By mixture and source, as of `texts`.
    recognise
        The recogniser.

    Attributes
    ----------
    rows
        What was recognised so far.
    unknown
        Sources of speech so far whose text is not known.
    """

    def __init__(self, texts: dict[tuple[str, str], str], recognise: Recogniser) -> None:
        self._texts, self._recognise = texts, recognise
        self.rows: list[Heard] = []
        self.unknown = 0

    def add(
        self,
        item: str,
        names: tuple[str, ...],
        mixture: Float32,
        references: Float32,
        estimates: Float32,
        rate_hz: int,
    ) -> None:
        """Recognise all sources of a mixture whose text is known.

        Parameters
        ----------
        item
            Name of the mixture.
        names
            Of the sources.
        mixture, references, estimates
            (n, channels), (sources, n, channels) and the same.
        rate_hz
            Of all.
        """
        self.unknown += sum(is_speech(name) and (item, name) not in self._texts for name in names)
        known = [index for index, name in enumerate(names) if (item, name) in self._texts]
        before = self._recognise(mixture.mean(axis=1), rate_hz) if known else ""
        for index in known:
            text = self._texts[item, names[index]]
            clean, estimate = (
                self._recognise(sounds[index].mean(axis=1), rate_hz)
                for sounds in (references, estimates)
            )
            heard = {"clean": clean, "mixture": before, "estimate": estimate}
            errors = {version: wrong_words(text, words) for version, words in heard.items()}
            count = len(words_of(text))
            self.rows.append(Heard(item, names[index], text, count, **heard, errors=errors))

    def summary(self) -> dict[str, WordErrors]:
        """Sum up by source."""
        result = {}
        for source in dict.fromkeys(row.source for row in self.rows):
            rows = [row for row in self.rows if row.source == source]
            words = sum(row.words for row in rows)
            rates = {
                version: sum(row.errors[version] for row in rows) / words for version in VERSIONS
            }
            result[source] = WordErrors(words, **rates)
        return result

    def sentences(self) -> list[str]:
        """State the rates of every source, and where separation makes recognition worse."""
        said = []
        for source, found in self.summary().items():
            said.append(
                f"{source}: word error rate {found.estimate:.1%} separated, {found.mixture:.1%} in "
                f"the mixture, {found.clean:.1%} alone ({found.words} words)"
            )
            if found.estimate > found.mixture:
                worse = 100 * (found.estimate - found.mixture)
                said.append(
                    f"{source}: separation makes recognition worse, by {worse:.1f} percentage "
                    "points: let a recogniser hear the mixture"
                )
        if self.unknown:
            said.append(f"{self.unknown} sources of speech have no text and were not recognised")
        return said


class PocketSphinx:
    """English speech to words, lower case, without a network; each call is independent.

    Raises
    ------
    ExtraError
        A package is missing.
    """

    def __init__(self) -> None:
        missing = [
            name for name in ("pocketsphinx", "jiwer") if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise ExtraError(
                f"--wer needs {' and '.join(missing)}: install with pip install 'rtsep[wer]'"
            )
        from pocketsphinx import Decoder

        # The mean of the features is that of this sound alone, not of those before it.
        self._decoder = Decoder(samprate=RATE_HZ, cmn="batch", loglevel="FATAL")

    def __call__(self, sound: Float32, rate_hz: int) -> str:
        """Recognise (n,) samples at a rate in Hz; silence has no words."""
        if not len(sound) or silent(sound):
            return ""
        if rate_hz != RATE_HZ:
            sound = soxr.resample(sound, rate_hz, RATE_HZ)
        samples = np.round(32767 * np.clip(sound, -1, 1)).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return "" if found is None else str(found.hypstr)


def words_of(text: str) -> list[str]:
    """Split a text into words without case and punctuation; an apostrophe belongs to its word."""
    bare = (word.strip("'") for word in re.findall(r"[\w']+", text.lower().replace("\u2019", "'")))
    return [word for word in bare if word]


def wrong_words(text: str, heard: str) -> int:
    """Count substituted, missing and added words; there must be words in ``text``."""
    import jiwer

    found = jiwer.process_words(" ".join(words_of(text)), " ".join(words_of(heard)))
    return found.substitutions + found.deletions + found.insertions


def texts(folder: Path, found: list[Item]) -> dict[tuple[str, str], str]:
    """Find what is said in a folder of mixtures, by mixture and source.

    Parameters
    ----------
    folder
        Has `TABLES` with the columns ``id``, the mixture's name, and ``text``, if it has one source
        of speech only, or ``text_<source>``; or beside each source a file ``.txt`` of its name.
    found
        Its mixtures.

    Raises
    ------
    EvaluationError
        There is no text, or a table can't be read.
    """
    stems = {(item.name, source): path for item in found for source, path in item.stems.items()}
    spoken = sorted({source for _, source in stems if is_speech(source)})
    result: dict[tuple[str, str], str] = {}
    for path in (folder / name for name in TABLES):
        for row in _rows(path) if path.is_file() else []:
            said = {source: row.get(f"text_{source}") for source in spoken}
            if len(spoken) == 1:
                said[spoken[0]] = said[spoken[0]] or row.get("text")
            for source, text in said.items():
                key = row.get("id") or "", source
                if key in stems and words_of(text or ""):
                    result.setdefault(key, text or "")
    for key, stem in stems.items():
        path = stem.with_suffix(".txt")
        if key not in result and path.is_file():
            text = _text(path)
            if words_of(text):
                result[key] = text.strip()
    if not result:
        raise EvaluationError(
            f"{folder} has no texts for --wer: it needs list.csv or transcripts.csv with columns "
            "id and text (text_SOURCE for several speakers), or a .txt beside each source file"
        )
    return result


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise EvaluationError(f"{path} can't be read: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} can't be read: {error}") from None
