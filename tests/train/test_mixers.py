"""Mixers make the mixtures that their options ask for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rtsep.errors import CorpusError
from rtsep.train.corpus import LEAD, STEMS, Corpus
from rtsep.train.mixers import (
    ChosenStem,
    Conversation,
    Mixer,
    Music,
    Speakers,
    SpeechInNoise,
)
from rtsep.train.sound import active_rms, faster, room
from tests.support.audio import tone

RATE = 8000


def speech(*speakers: str, unlabelled: str = "") -> Corpus:
    """A corpus in which every speaker is a tone of 100, 200, ... Hz, and noise one of 3 kHz."""
    pool = {
        name: [np.round(32767 * tone(100.0 * (i + 1), 1.0)).astype(np.int16)]
        for i, name in enumerate(speakers)
    }
    noise = {"hum": [np.round(32767 * tone(3000.0, 1.0)).astype(np.int16)]}
    return Corpus(RATE, {"speech": pool, "noise": noise}, unlabelled=set(unlabelled.split()))


def song(*names: str) -> Corpus:
    """Songs whose stems are tones: 200 Hz and its multiples by stem, 20 Hz higher by song."""
    rows = {
        stem: {
            name: [np.round(32767 * tone(200.0 * (i + 1) + 20 * j, 4.0)).astype(np.int16)]
            for j, name in enumerate(names)
        }
        for i, stem in enumerate(STEMS)
    }
    return Corpus(RATE, rows)


MIXERS: list[Mixer] = [
    SpeechInNoise(speech("a", "b"), ("speech", "noise"), 1, 3, RATE, clipped=0.0),
    SpeechInNoise(
        *(speech("a", "b"), ("speech", "noise"), 1, 3, RATE),
        **{"clipped": 0.0, "machines": 0.2, "grains": 0.2, "events": 0.2, "music": 0.1},
        **{"several": 0.5, "wet": 0.5, "steps": 0.5},
    ),
    Speakers(speech("a", "b", "c"), ("one", "two"), 1, 3, RATE),
    Speakers(speech("a", "b", "c"), ("one", "two", "three"), 1, 3, RATE),
    Conversation(speech("a", "b", "c"), ("s1", "s2", "noise"), 1, 3, RATE, clipped=0.0, silent=0.0),
    Music(song("x", "y"), STEMS, 1, 3, RATE),
]


@pytest.mark.parametrize(
    "mixer", MIXERS, ids=lambda mixer: f"{type(mixer).__name__}{len(mixer.sources)}"
)
def test_every_mixer_keeps_the_rules(mixer: Mixer) -> None:
    again, other = replace(mixer), replace(mixer, seed=2)
    again[0]
    for mine, theirs in zip(mixer[7], again[7], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(mixer[7][0], other[7][0])
    assert not np.array_equal(mixer[7][0], mixer[8][0])
    for index in range(8):
        mixture, targets = replace(mixer, level_db=(-30.0, -30.0))[index]
        assert mixture.dtype == targets.dtype == np.float32
        assert mixture.shape == (3, RATE, 1)
        assert targets.shape == (3, RATE, len(mixer.sources), 1)
        assert np.isfinite(targets).all()
        np.testing.assert_allclose(targets.sum(axis=2), mixture, atol=1e-6)
        level_db = 20 * np.log10(np.sqrt(np.mean(mixture**2, axis=(1, 2))))
        full = np.max(np.abs(mixture), axis=(1, 2)) > 0.98  # a burst can't be that loud on average
        np.testing.assert_allclose(level_db[~full], -30.0, atol=0.1)
        assert np.all(level_db < -29.9)
    # Processes that share a batch see together what one would.
    parts = [replace(mixer, part=(rank, 2))[5][1] for rank in (0, 1)]
    np.testing.assert_array_equal(mixer[5][1][0::2], parts[0])
    np.testing.assert_array_equal(mixer[5][1][1::2], parts[1])


def test_speech_is_as_much_louder_than_noise_as_asked() -> None:
    mixer = replace(MIXERS[0], snr_db=(5.0, 5.0))
    assert isinstance(mixer, SpeechInNoise)
    rng = np.random.default_rng(0)
    snrs = []
    for _ in range(40):
        voice, noise = mixer.example(rng).T
        snrs.append(20 * np.log10(active_rms(voice) / np.sqrt(np.mean(noise**2))))
    assert np.median(snrs) == pytest.approx(5.0, abs=0.1)  # few are silent or clean on purpose


def test_some_mixtures_are_clipped_but_never_their_sources() -> None:
    mixer = replace(MIXERS[0], clipped=1.0, level_db=(-20.0, -20.0))
    mixture, targets = mixer[3]
    whole = targets.sum(axis=2)
    for heard, made in zip(mixture[..., 0], whole[..., 0], strict=True):
        over = np.abs(made) > np.max(np.abs(heard)) + 1e-6
        assert over.any()
        np.testing.assert_allclose(heard[~over], made[~over], atol=1e-6)
        assert np.ptp(np.abs(heard[over])) < 1e-6


def test_noise_may_be_a_crowd() -> None:
    mixer = replace(MIXERS[0], babble=0.85, semitones=0.0, snr_db=(0.0, 0.0))
    assert isinstance(mixer, SpeechInNoise)
    rng, loudest = np.random.default_rng(0), []
    for _ in range(10):
        noise = np.abs(np.fft.rfft(mixer.example(rng)[:, 1]))
        loudest.append(int(np.argmax(noise) * RATE / mixer.samples))
    voices = {100, 200}
    assert sum(any(abs(f - v) < 5 for v in voices) for f in loudest) > 5, loudest


KINDS = {"machines": 0.85, "music": 0.85, "grains": 0.85, "events": 0.85}


@pytest.mark.parametrize("kind", KINDS)
def test_noises_of_every_kind_are_as_loud_as_asked(kind: str) -> None:
    corpus = speech("a", "b")
    corpus.clips["noise"]["music_x"] = [np.round(9000 * tone(1000.0, 2.0)).astype(np.int16)]
    mixer = SpeechInNoise(
        *(corpus, ("speech", "noise"), 1, 3, RATE, (-30.0, -30.0), (0, 1)),
        **{"babble": 0.0, "snr_db": (0.0, 0.0), "silent": 0.0, "clean": 0.0, kind: KINDS[kind]},
    )
    rng, sounds = np.random.default_rng(0), []
    for _ in range(12):
        voice, noise = mixer.example(rng).T
        assert np.isfinite(noise).all()
        level = max(np.sqrt(np.mean(noise**2)), 0.3 * active_rms(noise))
        assert 20 * np.log10(active_rms(voice) / level) == pytest.approx(0.0, abs=0.5)
        sounds.append(noise)
    quiet = [np.mean(np.abs(x) < 1e-3 * np.max(np.abs(x))) for x in sounds]
    assert kind != "events" or np.median(quiet) > 0.3  # silence between single sounds


def test_levels_change_at_once_in_both_sources() -> None:
    mixer = replace(MIXERS[1], steps=1.0, grains=0.0, events=0.0, silent=0.0, clean=0.0)
    assert isinstance(mixer, SpeechInNoise)
    plain = replace(mixer, steps=0.0)
    changed = 0
    for seed in range(8):
        before, after = (m.example(np.random.default_rng(seed)) for m in (plain, mixer))
        heard = np.abs(before) > 1e-4
        gains = np.where(heard, after / np.where(heard, before, 1.0), np.nan)
        first, last = np.nanmedian(gains[:20]), np.nanmedian(gains[-20:])
        assert first == pytest.approx(1.0, abs=1e-3) and 0.099 < last < 10.1
        changed += abs(last - 1.0) > 0.05
    assert changed > 4


def test_rooms_ring_after_the_direct_sound_and_differ() -> None:
    rooms = [room(np.random.default_rng(i), 16000) for i in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(rooms[0], rooms[1])
    for response in rooms:
        assert np.argmax(np.abs(response)) <= LEAD and np.max(np.abs(response)) == 1.0
        energy = np.cumsum(response[::-1] ** 2)[::-1] / np.sum(response**2)
        assert 0.02 < energy[64] < 0.98 and energy[-200:].max() < 0.05
    assert len({len(response) for response in rooms}) > 2


def test_nobody_speaks_with_themselves_nor_two_who_are_a_guess() -> None:
    made = speech("a", "b", "pv0", "pv1", "pv2", unlabelled="pv0 pv1 pv2")
    rng = np.random.default_rng(0)
    for names in (("1", "2"), ("1", "2", "3")):
        mixer = Speakers(made, names, 1, 1, RATE)
        seen = [mixer.speakers(rng) for _ in range(300)]
        assert all(len(set(who)) == len(names) for who in seen)
        assert all(len(set(who) & made.unlabelled) <= 1 for who in seen)
        assert {name for who in seen for name in who} == {"a", "b", "pv0", "pv1", "pv2"}
        for place in range(len(names)):  # nobody has a channel of their own
            assert len({who[place] for who in seen}) == 5
    with pytest.raises(
        CorpusError, match="2 speakers at once cannot be mixed from 0 labelled and 3"
    ):
        Speakers(speech("x", "y", "z", unlabelled="x y z"), ("1", "2"), 1, 1, RATE)
    with pytest.raises(CorpusError, match="from 1 labelled and 0"):
        Speakers(speech("alone"), ("1", "2"), 1, 1, RATE)


def test_speakers_differ_in_level_by_the_range() -> None:
    mixer = Speakers(speech("a", "b"), ("1", "2"), 1, 1, 4 * RATE, range_db=4.0)
    rng = np.random.default_rng(0)
    apart = []
    for _ in range(60):
        one, two = mixer.example(rng).T
        apart.append(20 * np.log10(active_rms(one) / active_rms(two)))
    assert max(map(abs, apart)) <= 4.01
    assert max(apart) > 2 and min(apart) < -2


def test_sounds_that_are_not_tilted_keep_their_colour() -> None:
    for tilted, changed in ((0.0, False), (1.0, True)):
        fields: dict[str, Any] = {"semitones": 0.0, "babble": 0.0, "snr_db": (0.0, 0.0)}
        mixer = SpeechInNoise(speech("a"), ("speech", "noise"), 1, 1, RATE, **fields, tilted=tilted)
        mixer._in_a_room = lambda sound, rng: sound  # type: ignore[method-assign]
        rng = np.random.default_rng(0)
        levels = [active_rms(mixer.example(rng)[:, 0]) for _ in range(4)]
        assert bool(np.ptp(levels) > 0.02) is changed


PAIRS = ("so1f", "so2f", "so3m", "so4m")


def conversation(**options: Any) -> Conversation:
    fields: dict[str, Any] = {"clean": 0.0, "alone": 0.0, "silent": 0.0, "semitones": 0.0}
    names = ("speaker1", "speaker2", "noise")
    return Conversation(speech(*PAIRS), names, 1, 1, 20 * RATE, **fields | options)


def test_conversations_are_of_the_same_sex_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 1.0):
        mixer = conversation(same_sex=share)
        pairs = [mixer._pair(rng) for _ in range(200)]
        assert all(one != two for one, two in pairs)
        same = np.mean([one[-1] == two[-1] for one, two in pairs])
        assert same == 1.0 if share else 0.2 < same < 0.5
        assert {one for one, _ in pairs} == set(PAIRS)


def test_in_turns_each_speaker_is_silent_at_times_and_one_always_speaks() -> None:
    rng = np.random.default_rng(3)
    mixer = conversation()
    shares = []
    for _ in range(50):
        gains = mixer._taken(rng)
        assert gains.shape == (20 * RATE, 2) and np.all((gains >= 0) & (gains < 1.0001))
        inner = gains[RATE:-RATE]
        assert inner.sum(axis=1).min() > 0.99
        shares.append(np.mean(inner.min(axis=1) > 0.5))
    assert min(shares) < 0.15 and max(shares) > 0.85 and 0.3 < np.mean(shares) < 0.7
    for turns in (0.0, 1.0):
        talks = [conversation(turns=turns, wet=0.0).example(rng)[:, :2] for _ in range(8)]
        pauses = [np.any(np.all(talk.reshape(40, -1, 2) == 0.0, axis=1)) for talk in talks]
        assert np.mean(pauses) > 0.5 if turns else not any(pauses)


def test_speakers_of_a_conversation_can_be_alone_silent_or_without_noise() -> None:
    rng = np.random.default_rng(0)
    loud = [np.any(conversation().example(rng), axis=0).tolist() for _ in range(20)]
    assert all(three == [True, True, True] for three in loud)
    alone = [np.any(conversation(alone=1.0).example(rng), axis=0).tolist() for _ in range(20)]
    assert {tuple(three) for three in alone} == {(True, False, True), (False, True, True)}
    assert not np.any(conversation(silent=1.0, clean=1.0).example(rng))
    with pytest.raises(CorpusError, match="two speakers and noise, not 2"):
        Conversation(speech("a", "b"), ("1", "2"), 1, 1, RATE)


def test_levels_of_a_conversation_change_at_once() -> None:
    before, after = (
        conversation(steps=steps).example(np.random.default_rng(1)) for steps in (0.0, 1.0)
    )
    heard = np.abs(before) > 1e-3
    gains = np.where(heard, after / np.where(heard, before, 1.0), np.nan)
    last = round(float(gains[heard][-1]), 3)
    assert last != 1.0 and {round(float(gain), 3) for gain in gains[heard]} == {1.0, last}


def peaks(sources: np.ndarray) -> list[int]:
    """The frequency of each tone, in Hz; 0 for silence."""
    spectra = np.abs(np.fft.rfft(sources, axis=0))
    found = np.argmax(spectra, axis=0) * RATE / len(sources)
    return [round(hz) if np.any(x) else 0 for hz, x in zip(found, sources.T, strict=True)]


def test_one_stem_is_chosen_by_the_control() -> None:
    mixer = ChosenStem(song("x", "y"), ("chosen", "rest"), 1, 8, RATE, silent=0.0)
    mixtures, targets, control = mixer[3]
    again = mixer[3]
    np.testing.assert_array_equal(again[2]["stem"], control["stem"])
    np.testing.assert_allclose(targets.sum(axis=2), mixtures, atol=1e-6)
    _, stems = Music(song("x", "y"), STEMS, 1, 8, RATE, silent=0.0)[3]
    assert set(control["stem"].sum(axis=1)) == {1.0}
    chosen = control["stem"].argmax(axis=1)
    assert len(set(chosen)) > 1
    for example, stem in enumerate(chosen):
        np.testing.assert_array_equal(targets[example, :, 0], stems[example, :, stem])
    part = replace(mixer, sources=("chosen", "rest"), part=(1, 2))[3]
    np.testing.assert_array_equal(part[1], targets[1::2])
    with pytest.raises(CorpusError, match="two sources"):
        ChosenStem(song("x"), STEMS, 1, 1, RATE)


def test_stems_are_of_one_song_or_of_many() -> None:
    rng = np.random.default_rng(0)
    plain = Music(song("x", "y"), STEMS, 1, 1, RATE, semitones=0.0, silent=0.0, together=1.0)
    together = {tuple(peaks(plain.example(rng))) for _ in range(20)}
    assert together == {(200, 400, 600, 800), (220, 420, 620, 820)}
    mixed = {tuple(peaks(replace(plain, together=0.0).example(rng))) for _ in range(80)}
    assert len(mixed) == 16
    some = [peaks(replace(plain, silent=0.5).example(rng)) for _ in range(40)]
    assert all(any(hz) for hz in some)
    assert any(not all(hz) for hz in some)


def test_a_stem_a_song_does_not_have_is_silent() -> None:
    made = song("x")
    del made.clips["bass"]["x"]
    made.clips["bass"]["y"] = [np.round(32767 * tone(500.0, 4.0)).astype(np.int16)]
    mixer = Music(made, STEMS, 1, 1, RATE, semitones=0.0, silent=0.0, together=1.0)
    rng = np.random.default_rng(0)
    assert {tuple(peaks(mixer.example(rng))) for _ in range(20)} == {
        (200, 400, 0, 800),
        (0, 0, 500, 0),
    }


def test_levels_of_stems_are_balanced_first() -> None:
    made = song("x")
    made.clips["other"]["x"][0] //= 16  # raw stems differ by far more than a mix
    mixer = Music(made, STEMS, 1, 1, RATE, gain_db=(0.0, 0.0), silent=0.0, together=0.0)
    levels = np.sqrt(np.mean(mixer.example(np.random.default_rng(0)) ** 2, axis=0))
    np.testing.assert_allclose(levels, 0.1, rtol=0.02)


def test_pitch_and_tempo_change_together() -> None:
    clip = np.round(32767 * tone(400.0, 4.0)).astype(np.int16)
    higher = faster(clip, 1.25)
    assert len(higher) == pytest.approx(len(clip) / 1.25, abs=2)
    assert peaks((higher / 32768)[:RATE, None])[0] == 500
    rng = np.random.default_rng(0)
    heard = [
        peaks(Music(song("x"), STEMS, 1, 1, RATE, silent=0.0, together=1.0).example(rng))
        for _ in range(30)
    ]
    assert all(178 <= hz[0] <= 225 for hz in heard)  # two semitones
    assert len({hz[0] for hz in heard}) > 10
    assert all(abs(hz[3] - 4 * hz[0]) <= 8 for hz in heard)  # a song stays in tune with itself


def test_stems_are_composed_of_pieces() -> None:
    strokes = [np.round(32767 * tone(300.0 * i, 0.05)).astype(np.int16) for i in (1, 2, 3)]
    made = Corpus(RATE, {"drums piece": {"kit": strokes}})
    mixer = Music(made, ("drums",), 1, 1, 4 * RATE)
    beats = mixer.example(np.random.default_rng(0))[:, 0]
    assert 0.05 < np.mean(np.abs(beats) > 1e-4) < 0.9
    with pytest.raises(CorpusError, match="no usable audio of vocals"):
        Music(made, ("vocals", "drums"), 1, 1, RATE)
    with pytest.raises(
        CorpusError, match="no stem 'guitar'; there are: vocals, drums, bass, other"
    ):
        Music(made, ("guitar",), 1, 1, RATE)
