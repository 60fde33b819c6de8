"""Build more training audio, in the layout of the data folder, from unpacked public sources.

python -m export.more_data --sources DIR --out DIR [--only speech noise music songs] [--join DATA]

`--sources` contains checkouts of repositories, named ``owner+name``, and unpacked packages, named
as the package. Missing ones are reported and left out. To fill it:

- ``git clone --depth 1 https://github.com/OWNER/NAME OWNER+NAME`` for
  rhasspy/dataset-voice-kerstin, hugolpz/audio-cmn, mateusfg7/Noisekun, JBFH-Dev/Keystroke-Datasets
  and, for songs, freepats/muldjordkit, sfzinstruments/dsmolken.double-bass and
  sfzinstruments/karoryfer.growlybass;
- ``apt-get download NAME`` and ``dpkg-deb -x NAME_*.deb NAME`` for
  asterisk-core-sounds-{en,es,fr,it,ru}-g722, openttd-opensfx, fluid-soundfont-gm,
  timgm6mb-soundfont;
- ``pip download --no-deps music21`` and ``unzip -d music21 music21-*.whl``.

It needs ``ffmpeg`` for G.722, ``fluidsynth`` for music and songs, and for songs ``pip install
pedalboard pyworld``.

`--join` writes no audio, but a folder of links with one table for the given data and these.
"""

from __future__ import annotations

import argparse
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from export.clips import (
    CLEAN,
    CLEAN_SHORT,
    COLUMNS,
    FRAME,
    NOISE_SECONDS,
    PARTS,
    RATE,
    SEED,
    Audio,
    Source,
    Table,
    active_level,
    clipped,
    decode,
    faded,
    joined,
    levelled,
    levels,
    prepare,
    read_table,
    trimmed,
    write_table,
)
from export.scores import music

PROMPTS = "usr/share/asterisk/sounds/**/*.g722"
NO_WORDS = (
    *("silence", "beep", "beeperr", "ascending-2tone", "descending-2tone", "tt-monkeys"),
    *("confbridge-join", "confbridge-leave"),
)
ALLISON = (
    "Asterisk core sounds, {} (Debian): recorded by Allison Smith, www.theivrvoice.com, "
    "financed by Digium, Inc. CC BY-SA 3.0."
)
VOICES = (
    Source(
        "rhasspy+dataset-voice-kerstin",
        "kerstin",
        "verified/*.flac",
        "CC0-1.0",
        "Kerstin, German voice data set by a volunteer and Michael Hansen (Rhasspy). CC0 1.0.",
    ),
    Source(
        "hugolpz+audio-cmn",
        "cmn_tan",
        "96k/hsk/*.mp3",
        "CC-BY-SA-3.0",
        "audio-cmn, HSK words: spoken by Yue Tan, Shtooka collection cmn-caen-tan, "
        "https://packs.shtooka.net/cmn-caen-tan; Nicolas Vion, Hugo Lopez. CC BY-SA (the "
        "repository names no version; 3.0 as its other collection).",
    ),
    Source(
        "hugolpz+audio-cmn",
        "cmn_wang",
        "64k/syllabs/*.mp3",
        "CC-BY-SA-3.0",
        "audio-cmn, syllables: (c) 2013 Chen Wang (voice), Hugo Lopez, Nicolas Vion. CC BY-SA 3.0.",
    ),
    Source(
        "asterisk-core-sounds-en-g722",
        "ast_allison",
        PROMPTS,
        "CC-BY-SA-3.0",
        ALLISON.format("US English"),
        NO_WORDS,
    ),
    Source(
        "asterisk-core-sounds-es-g722",
        "ast_allison",
        PROMPTS,
        "CC-BY-SA-3.0",
        ALLISON.format("Mexican Spanish"),
        NO_WORDS,
    ),
    Source(
        "asterisk-core-sounds-fr-g722",
        "ast_june",
        PROMPTS,
        "CC-BY-SA-3.0",
        "Asterisk core sounds, Canadian French (Debian): (c) 2006-2008 June Wallack, "
        "www.junewallack.com; translated by Clod Patry, Kristopher Lalletti, June Wallack; "
        "financed by Digium, Unlimitel, BGM Informatique. CC BY-SA 3.0.",
        NO_WORDS,
    ),
    Source(
        "asterisk-core-sounds-it-g722",
        "ast_carlo",
        PROMPTS,
        "CC-BY-3.0",
        "Asterisk core sounds, Italian (Debian): (c) 2012 Carlo Flora, www.carloflora.com, "
        "www.segreterietelefoniche.it; translated by Silvia Petrin. CC BY 3.0.",
        NO_WORDS,
    ),
    Source(
        "asterisk-core-sounds-ru-g722",
        "ast_ivrvoice",
        PROMPTS,
        "CC-BY-3.0",
        "Asterisk core sounds, Russian (Debian): (c) 2010 Maxim Topal, www.ivrvoice.ru. CC BY 3.0.",
        NO_WORDS,
    ),
)


def _noisekun(name: str, key: str, author: str, licence: str = "CC0-1.0") -> Source:
    version = "" if licence == "CC0-1.0" else ", which names no version"
    credit = f"Noisekun, {name}: {author}. {licence}, by its README{version}."
    file = f".github/assets/sounds/{name}.ogg"
    return Source("mateusfg7+Noisekun", key, file, licence, credit)


SFX = "SFX Producer (YouTube)"
AMBIENCES = (
    _noisekun("air-plane", "nk_airplane", SFX),
    _noisekun("birds-tree", "amb_birds", SFX),
    _noisekun("brown-noise", "nk_brown_noise", "George Dyer, freesound.org 171552"),
    _noisekun("cave-drops", "nk_drops", f"{SFX}, edited by Devan McGeer"),
    _noisekun("drops", "nk_drops", SFX),
    _noisekun("fire", "amb_fireplace", SFX),
    _noisekun("night", "amb_crickets", SFX),
    _noisekun("pink-noise", "nk_pink_noise", "Omegatron, es.wikipedia.org", "CC-BY-SA-3.0"),
    _noisekun("rain", "amb_rain", SFX),
    _noisekun("storm", "amb_storm", "Borys Kozielski, freesound.org 316831"),
    _noisekun("stream-water", "amb_stream", SFX),
    _noisekun("waves", "amb_waves", SFX),
    _noisekun(
        "white-noise", "nk_white_noise", "Jorge Stolfi, commons.wikimedia.org", "CC-BY-SA-3.0"
    ),
    # These contain voices: their categories are left out when the folder is read.
    _noisekun("coffee", "amb_cafe", SFX),
    _noisekun("playground", "amb_crowd", f"{SFX}, edited by Mateus Felipe"),
)
"""Of Noisekun, without Train and Washing Machine (their licences), and without boat, leaves,
rain-on-tent, underwater, waterfall and wind, which the data has already."""
STROKES = Source(
    "JBFH-Dev+Keystroke-Datasets",
    "keystrokes",
    "*/*.wav",
    "MIT",
    "Keystroke-Datasets, (c) 2023 Josh (JBFH-Dev). MIT. Strokes of all keys, shuffled.",
)
OPENSFX = Source(
    "openttd-opensfx",
    "sfx_machines",
    "usr/share/games/openttd/baseset/opensfx/opensfx.cat",
    "CC-BY-SA-3.0",
    "OpenSFX 1.0.3, sound effects by its authors, listed in its readme (Debian: "
    "/usr/share/doc/openttd-opensfx/readme.txt.gz), https://github.com/OpenTTD/OpenSFX. "
    "CC BY-SA 3.0.",
)


class NotUsableError(ValueError):
    """A clip is left out; the message is the reason in one or two words."""


def utterance(path: Path) -> Audio:
    """Decode one clip of a voice, trimmed and levelled.

    Raises
    ------
    NotUsableError
        The clip is clipped, noisy or (nearly) empty.
    """
    audio, rate = decode(path)
    if clipped(audio):
        raise NotUsableError("clipped")
    if len(audio) < rate / 5 or np.max(np.abs(audio)) < 0.01:
        raise NotUsableError("empty")
    audio = prepare(audio, rate)
    frames = levels(audio)
    floor = 10 * np.log10(np.convolve(10 ** (frames / 10), np.ones(3) / 3, "valid").min())
    if active_level(frames) - floor < (CLEAN if len(audio) > 2 * RATE else CLEAN_SHORT):
        raise NotUsableError("noisy")
    return levelled(np.concatenate(trimmed(audio)))


def speech(sources: Path, table: Table) -> None:
    """Add all voices."""
    for voice in VOICES:
        dropped: dict[str, int] = {}

        def usable(voice: Source, dropped: dict[str, int]) -> Iterator[tuple[Audio, str]]:
            for path in voice.files(sources):
                try:
                    yield utterance(path), path.relative_to(sources / voice.folder).as_posix()
                except (NotUsableError, soundfile.LibsndfileError) as error:
                    reason = str(error) if isinstance(error, NotUsableError) else "unreadable"
                    dropped[reason] = dropped.get(reason, 0) + 1

        for audio, original in joined(usable(voice, dropped)):
            table.add("speech", audio, voice, original)
        print(f"{voice.folder} {voice.key}: dropped {dropped}", flush=True)


def noise(sources: Path, table: Table) -> None:
    """Add ambiences, keystrokes and sound effects."""
    for source in AMBIENCES:
        for path in source.files(sources):
            original = path.relative_to(sources / source.folder).as_posix()
            audio = prepare(*decode(path))
            for piece in _pieces(audio):
                table.add("noise", piece, source, original)
    strokes = [
        piece
        for path in STROKES.files(sources)
        for piece in trimmed(prepare(*decode(path)), below=18.0, pause=0.06)
        if 0.1 * RATE < len(piece) < 0.6 * RATE
    ]
    for audio in _typed(strokes):
        table.add("noise", audio, STROKES, f"{STROKES.pattern}, shuffled")
    for path in OPENSFX.files(sources):
        for audio, original in joined(_effects(path)):
            table.add("noise", audio, OPENSFX, original)


def _pieces(audio: Audio) -> Iterator[Audio]:
    """Cut a long recording into pieces with the same gain, lower for pieces that would clip."""
    count = max(round(len(audio) / RATE / NOISE_SECONDS), 1)
    frames = levels(audio)
    whole = active_level(frames)
    for piece in np.array_split(audio, count):
        if active_level(levels(piece)) > whole - 20:
            yield levelled(faded(piece))


def _typed(strokes: list[Audio]) -> Iterator[Audio]:
    """Make typing: strokes in random order, 60 to 400 ms apart."""
    random = np.random.default_rng(SEED)
    random.shuffle(strokes)
    size = round(NOISE_SECONDS * RATE)
    audio, at = np.zeros(size, np.float32), 0
    for stroke in strokes:
        if at + len(stroke) > size:
            yield levelled(audio)
            audio, at = np.zeros(size, np.float32), 0
        audio[at : at + len(stroke)] += stroke * 10 ** (random.uniform(-6, 3) / 20)
        at += round((0.06 + min(random.exponential(0.12), 0.34)) * RATE)


def _effects(path: Path) -> Iterator[tuple[Audio, str]]:
    """Read the sounds of an OpenTTD catalogue: a table of offsets, then name and WAV of each."""
    data = path.read_bytes()
    count = (struct.unpack_from("<I", data)[0] & 0x7FFFFFFF) // 8
    for index in range(count):
        offset = struct.unpack_from("<I", data, 8 * index)[0] & 0x7FFFFFFF
        name = data[offset + 1 : offset + 1 + data[offset]].split(b"\0")[0].decode("latin-1")
        start = offset + 1 + data[offset]
        size = 8 + struct.unpack_from("<I", data, start + 4)[0]
        audio, rate = soundfile.read(
            io.BytesIO(data[start : start + size]), dtype="float32", always_2d=True
        )
        if any(word in name.lower() for word in VOCAL) or np.max(np.abs(audio), initial=0) < 0.01:
            continue
        mono = prepare(audio.mean(axis=1), rate)
        if len(mono) > 10 * FRAME:
            yield levelled(faded(mono)), name


VALIDATED = "eif_lithium"
"""The real song that is for validation."""
VOCAL = ("applause", "audience", "monkey", "growl", "oooh", "slurp")
"""Names of effects with voices."""


def join(base: Path, out: Path, target: Path) -> None:
    """Make a folder of links to the given data and to these, with one table.

    ``gc_kerstin`` of the given data is left out: it is a part of ``kerstin`` here. Since songs here
    have a validation split, `VALIDATED` of the given ones joins it.
    """
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, folder in (("base", base), ("more", out)):
        for row in read_table(folder / "MANIFEST.csv"):
            if name == "base" and row["speaker_or_category"] == "gc_kerstin":
                continue
            if VALIDATED in row["path"]:
                row["split"] = "val"
            path = Path(row["path"])
            if path.parts[0] in PARTS.values():
                row["path"] = Path(path.parts[0], name, *path.parts[1:]).as_posix()
            rows.append({column: row[column] for column in COLUMNS})
        for part in set(PARTS.values()):
            if (target / part).is_symlink():
                (target / part).unlink()
            (target / part).mkdir(exist_ok=True)
            _link(target / part / name, folder / part)
    for folder in base.iterdir():
        if folder.is_dir() and folder.name not in PARTS.values():
            _link(target / folder.name, folder)
    write_table(target / "MANIFEST.csv", rows)


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def main() -> None:
    """Build the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sources", type=Path, help="folder of sources")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--join", type=Path, metavar="DATA", help="data folder to join with")
    parser.add_argument("--joined", type=Path, help="folder of links; OUT-joined")
    arguments = parser.parse_args()
    if arguments.sources is not None:
        table = Table(arguments.out)
        for part in arguments.only:
            table.clear(part)
        if "speech" in arguments.only:
            speech(arguments.sources, table)
        if "noise" in arguments.only:
            noise(arguments.sources, table)
        if "music" in arguments.only:
            music(arguments.sources, table)
        if "songs" in arguments.only:
            try:
                from export.songs import songs
            except ModuleNotFoundError as error:
                parser.exit(1, f"songs need {error.name}: pip install pedalboard pyworld\n")
            songs(arguments.sources, table)
        table.save()
    if arguments.join is not None:
        target = arguments.joined or arguments.out.with_name(arguments.out.name + "-joined")
        join(arguments.join, arguments.out, target)


if __name__ == "__main__":
    main()
