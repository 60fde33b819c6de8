"""Mixtures made on the fly, one kind per module."""

from __future__ import annotations

from rtsep.train.mixers.conversation import Conversation
from rtsep.train.mixers.enrolled import Enrolled
from rtsep.train.mixers.mixer import Mixer
from rtsep.train.mixers.music import ChosenStem, Music
from rtsep.train.mixers.speakers import Speakers
from rtsep.train.mixers.speech import SpeechInNoise

__all__ = [
    "MIXERS",
    "ChosenStem",
    "Conversation",
    "Enrolled",
    "Mixer",
    "Music",
    "Speakers",
    "SpeechInNoise",
]

MIXERS: dict[str, type[Mixer]] = {
    "speech": SpeechInNoise,
    "speakers": Speakers,
    "conversation": Conversation,
    "enrolled": Enrolled,
    "music": Music,
    "stem": ChosenStem,
}
"""Mixers by the ``kind`` in a recipe's mixtures."""
