"""A model of your own, trained and exported: own_model.py DATA mine.onnx [SECONDS]."""

import sys
import time
from itertools import count
from pathlib import Path

import torch
from torch import nn

from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.layers import CausalConv
from rtsep.nn.onnx import export, write
from rtsep.nn.streaming import Streaming
from rtsep.spec import Spec
from rtsep.train.corpus import Corpus
from rtsep.train.layouts import table
from rtsep.train.losses import negative_snr
from rtsep.train.mixers import SpeechInNoise

SPEC = Spec(16000, 1, "stft", "hann", 512, 128, 1, 0, ("speech", "noise"))


class Masks(Streaming):
    """Two causal convolutions over log spectra estimate a mask of speech."""

    def __init__(self):
        super().__init__()
        self.one, self.two = CausalConv(257, 128, 4), CausalConv(128, 128, 4)
        self.share = nn.Linear(128, 257)

    def initial_state(self, streams):
        return {"one": self.one.initial_state(streams), "two": self.two.initial_state(streams)}

    def forward(self, x, state):  # (streams, frames, channels, 2: real and imaginary, bins)
        h, one = self.one(torch.log10(x.square().sum((2, 3)) + 1e-6), state["one"])
        h, two = self.two(torch.tanh(h), state["two"])
        share = torch.sigmoid(self.share(torch.tanh(h)))[:, :, None, None, None]
        x = x[:, :, None]  # add an axis of sources
        return torch.cat([share * x, (1 - share) * x], dim=2), {"one": one, "two": two}


data, output, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float([*sys.argv, 60][3])
corpus = Corpus.load([row for row in table(data) if row.split == "train"], SPEC.sample_rate)
mixer = SpeechInNoise(corpus, SPEC.sources, seed=0, batch_size=8, samples=SPEC.sample_rate)
model, frontend = Masks(), Frontend(SPEC)
optimizer = torch.optim.Adam(model.parameters(), 2e-3)
end = time.monotonic() + seconds
for step in count(1):
    mixture, target = (torch.from_numpy(part) for part in mixer[step])
    loss = negative_snr(separate(model, frontend, mixture), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if time.monotonic() > end:
        break
texts = {"name": output.stem, "model": "two causal convolutions", "training": f"{step} steps"}
texts |= {"licence": "mine", "quality": f"SNR {-loss.item():.1f} dB at the end of training"}
write(export(model, SPEC, texts), output)
print(f"{output}: {texts['training']}, {texts['quality']}")
