"""Non-negative auto-encoders of one source's magnitudes, in torch.

P. Smaragdis, S. Venkataramani, "A neural network alternative to non-negative audio models", ICASSP
2017 (arXiv 1609.03296): H = g(X W1), Y = g(H W2) with g(z) = log(1 + exp(z)), shallow or with
symmetric layers between. S. Venkataramani, C. Subakan, P. Smaragdis, "Neural network alternatives
to convolutive audio models for source separation", MLSP 2017 (arXiv 1709.07908): encoder and
decoder are convolutions over frames (CCAE), or the encoder is recurrent (RCAE). No layer has an
bias. Encoders read past frames only, because live separation must recognise an entry at its start.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.learned.decoder import EPSILON, Decoder
from rtsep.spec import Float32

BEND = 0.1
"""The knee of the softplus, relative to the mean magnitude: 20 dB below it, for quiet bins."""
OPEN = 5.0
"""Initial activation of an entry by the piece it was taken from: well above the knee."""
PIECE = 100
"""Frames per sequence of a recurrent encoder."""


class AutoEncoder(nn.Module):
    """Encodes magnitudes (frames, bins) as activations (frames, rank) and decodes them.

    Parameters
    ----------
    x
        Training magnitudes (frames, bins). Entries are initialised with pieces of them, see
        `exemplars`.
    rank
        Activations per frame.
    hidden
        Width of a hidden layer on both sides; none if 0.
    taps
        Frames per entry of encoder and decoder.
    recurrent
        Whether the encoder is an LSTM instead.
    """

    def __init__(
        self, x: Tensor, rank: int, hidden: int = 0, taps: int = 1, recurrent: bool = False
    ) -> None:
        super().__init__()
        bins = x.shape[1]
        self.rank, self.taps = rank, taps
        self.scale = BEND * float(x.mean())
        self.level = float(x.sum(dim=1).mean())
        self.lstm = nn.LSTM(bins, rank, batch_first=True) if recurrent else None
        following = F.pad(x, (0, 0, 0, taps - 1)).unfold(0, taps, 1)
        chosen = exemplars(following, hidden or rank)
        pieces, heard = following[chosen] + EPSILON, self.heard(x)[chosen] + EPSILON
        # The encoder matches the frames before a piece; x is scaled as in `encode`.
        matched = heard * (OPEN * self.level / bins / heard.square().sum((1, 2), keepdim=True))
        encoder = [matched.transpose(1, 2).flatten(1).T]  # (taps * bins, entries), by frame
        decoder = [pieces.permute(2, 0, 1).flatten(0, 1) / self.scale]
        if hidden:  # each activation is initialised as the sum of some entries
            between = 0.1 * torch.rand(rank, hidden) / rank
            between[torch.arange(hidden) % rank, torch.arange(hidden)] += 1
            encoder.append(between.T * (rank / hidden))
            decoder.insert(0, between)
        if recurrent:
            encoder = [torch.randn(rank, rank) * 2 / rank**0.5]
        self.encoder = nn.ParameterList(matrix.contiguous() for matrix in encoder)
        self.decoder = nn.ParameterList(matrix.contiguous() for matrix in decoder)
        with torch.no_grad():
            self.decoder[-1] *= x.sum() / self.decode(self.encode(x)).sum()

    def heard(self, x: Tensor) -> Tensor:
        """Return the input of the convolutional encoder at each frame, (frames, bins, taps)."""
        return F.pad(x, (0, 0, self.taps - 1, 0)).unfold(0, self.taps, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations of all frames."""
        x = x * (x.shape[1] / self.level)
        if self.lstm is not None:
            pieces: Tensor = F.pad(x, (0, 0, 0, -len(x) % PIECE)).unflatten(0, (-1, PIECE))
            h: Tensor = self.lstm(pieces)[0].flatten(0, 1)[: len(x)]
        else:
            h = self.heard(x).transpose(1, 2).flatten(1)
        for matrix in self.encoder:
            h = F.softplus(h @ matrix)
        return h

    def decode(self, h: Tensor) -> Tensor:
        """Return the magnitudes of all frames."""
        taps = [F.pad(h, (0, 0, t, 0))[: len(h)] for t in range(self.taps)]
        y = torch.cat(taps, dim=1)
        for matrix in self.decoder:
            y = F.softplus(y @ matrix)
        return y * self.scale


def exemplars(x: Tensor, count: int) -> Tensor:
    """Choose different pieces of a recording at random (k-means++); return their frames.

    D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; the
    distance is the angle between pieces.

    Parameters
    ----------
    x
        (frames, bins, taps).
    count
        Number of pieces.

    Returns
    -------
    (count,)
    """
    flat = x.flatten(1)
    loudness = flat.norm(dim=1)
    direction = flat / (loudness[:, None] + EPSILON)
    far = torch.ones(len(flat))
    chosen = []
    for _ in range(count):
        index = int(torch.multinomial(far * loudness + 1e-9, 1))
        chosen.append(index)
        far = torch.minimum(far, (1 - (direction @ direction[index]).square()).clamp(min=0))
    return torch.tensor(chosen)


def divergence(x: Tensor, y: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of non-negative arrays, relative to ``x``."""
    y = y + EPSILON
    return (x * (torch.log(x + EPSILON) - torch.log(y)) - x + y).sum() / x.sum()


def learn(
    magnitudes: Float32,
    rank: int,
    *,
    hidden: int = 0,
    taps: int = 1,
    recurrent: bool = False,
    updates: int = 300,
    sparsity: float = 0.0,
    smallness: float = 0.0,
    seed: int = 0,
    done: Callable[[], object] = lambda: None,
) -> tuple[Decoder, Float32]:
    """Train an auto-encoder on one source, all frames at once, by resilient propagation.

    Parameters
    ----------
    magnitudes
        (frames, bins) of the source.
    rank, hidden, taps, recurrent
        See `AutoEncoder`.
    updates
        Number of updates of all weights.
    sparsity
        Penalty of the activations: lambda in divergence + lambda * mean |h|.
    smallness
        Penalty of the decoder's weights: mu * mean |w|.
    seed
        Seed of the random initialisation.
    done
        Called after each update.

    Returns
    -------
    The decoder, and the activations (frames, rank).
    """
    x = torch.from_numpy(magnitudes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoEncoder(x, rank, hidden, taps, recurrent)
    optimiser = torch.optim.Rprop(model.parameters(), lr=1e-3, step_sizes=(1e-7, 1.0))
    for _ in range(updates):
        h = model.encode(x)
        loss = divergence(x, model.decode(h)) + sparsity * h.mean()
        if smallness:
            loss = loss + smallness * sum(w.abs().mean() for w in model.decoder)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done()
    with torch.no_grad():
        h = model.encode(x)
        matrices = [w.numpy().copy() for w in model.decoder]
    activations = h.numpy()
    # In the units of `Decoder.usual`: the sums of activations and of magnitudes are equal.
    unit = np.float32(model.level / (activations.sum(axis=1).mean() + EPSILON))
    matrices[0] /= unit
    usual = activations.mean(axis=0) + np.float32(1e-9)
    decoder = Decoder(tuple(matrices), taps, False, model.scale, usual / usual.sum())
    return decoder, activations * unit
