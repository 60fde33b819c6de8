"""The architectures of the literature in miniature: streams and options that cost little."""

from typing import Any

from rtsep.spec import Spec

RATE = 8000
SOURCES = ("tone", "hiss")
SPECTRA = Spec(RATE, 1, "stft", "hann", 128, 64, 1, 0, SOURCES)
BLOCKS = Spec(RATE, 1, "waveform", "rectangular", 64, 64, 1, 0, SOURCES)
LAYERS = {"filters": (4, 8), "taps": (3, 3), "widths": (5, 5)}
MINIATURES: dict[str, tuple[Spec, dict[str, Any]]] = {
    "cdae": (SPECTRA, {"filters": (8, 12, 12, 8)}),
    "complexunet": (SPECTRA, LAYERS),
    "demucs": (BLOCKS, {"hidden": 12, "levels": 2}),
    "feedforward": (SPECTRA, {"patch": 5, "hidden": 64}),
    "openunmix": (SPECTRA, {"hidden": 48, "layers": 1}),
    "recurrent": (SPECTRA, {"hidden": 48}),
    "tasnet": (BLOCKS, {"filters": 64, "hidden": 64, "layers": 1}),
    "unet": (SPECTRA, {"filters": 6, "levels": 2, "taps": 3}),
    "waveunet": (BLOCKS, {"filters": 6, "levels": 2}),
}
"""Stream and options of each."""
