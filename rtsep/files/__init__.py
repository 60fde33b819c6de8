"""Reading and writing audio files, atomic replacement, spectrogram pictures."""
