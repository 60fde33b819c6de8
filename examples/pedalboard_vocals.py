"""Apply effects to the vocals of a song and mix them with the accompaniment.

python examples/pedalboard_vocals.py song.wav out.wav
"""

import sys

from pedalboard import Compressor, Gain, HighpassFilter, Pedalboard, Reverb
from pedalboard.io import AudioFile

import rtsep

with AudioFile(sys.argv[1]) as file:
    rate, song = int(file.samplerate), file.read(file.frames).T  # pedalboard: (channels, n)
board = Pedalboard(
    [HighpassFilter(120), Compressor(threshold_db=-24, ratio=3), Reverb(room_size=0.3), Gain(3)]
)
vocals = rtsep.separate(song, rate, "music")["vocals"]
mix = song - vocals + board(vocals.T, rate).T
with AudioFile(sys.argv[2], "w", rate, mix.shape[1]) as file:
    file.write(mix.T)
print(f"{sys.argv[2]}: {len(mix) / rate:.1f} s")
