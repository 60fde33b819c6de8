"""Clustering of time-frequency bins by attractors, live and in training.

Z. Chen, Y. Luo, N. Mesgarani, "Deep Attractor Network for Single-Microphone Speaker Separation",
ICASSP 2017, arXiv 1611.08930; with learned starts as in Y. Luo, Z. Chen, N. Mesgarani,
"Speaker-Independent Speech Separation with Deep Attractor Network", IEEE/ACM TASLP 2018.

Every bin has an embedding, every source an attractor in the same space; the masks are a softmax
over sources of their inner products. In training the attractors are the mean embeddings of the bins
that each source owns. Live nobody knows who owns a bin: each source starts from a learned *anchor*,
and its attractor follows the bins that its own mask takes, one soft k-means step per frame.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

from rtsep.nn.streaming import State

HEARD_DB = 40.0
"""In training, bins so far below the loudest do not shape the attractors."""


class Attractors(nn.Module):
    """Embeddings to masks, with one attractor per source that follows its source.

    A source's attractor is the weighted mean of its anchor and of the embeddings it has taken. What
    it takes pushes out what it took before, nothing else does: in silence, or while only the others
    sound, it stays where it is, so a source finds its output channel again. The anchor keeps its
    share for ever, so no attractor drifts to another's place.

    Parameters
    ----------
    sources, size
        Number of attractors, and of dimensions.
    anchor
        Weight of the anchor, in bins of full loudness.
    memory
        Most embeddings remembered per source, in bins of full loudness.
    """

    def __init__(
        self, sources: int, size: int, anchor: float = 2000.0, memory: float = 20000.0
    ) -> None:
        super().__init__()
        self.anchor = anchor
        self.memory = memory
        self.anchors = nn.Parameter(torch.randn(sources, size) / size**0.5)

    def initial_state(self, streams: int) -> State:
        """Per source, the sum of the embeddings it has taken and, last, of their weights."""
        sources, size = self.anchors.shape
        return {"sums": torch.zeros(streams, sources, size + 1)}

    def forward(self, embeddings: Tensor, loudness: Tensor, state: State) -> tuple[Tensor, State]:
        """Masks of every frame by the attractors that the frames before it have left.

        Parameters
        ----------
        embeddings
            (streams, frames, bins, size).
        loudness
            Weight of each bin, 0 (silent) to 1, (streams, frames, bins).
        state
            Of :meth:`initial_state`.

        Returns
        -------
        (Tensor, State)
            Masks (streams, frames, sources, bins) that add up to 1, and the next state.
        """
        sums = state["sums"]
        masks = []
        pairs = zip(_counted(embeddings).unbind(1), loudness.unbind(1), strict=True)
        for counted, weight in pairs:  # each frame needs the attractors of the one before
            mask = _masks(counted[..., :-1], self.attractors(sums))
            sums = self.remember(sums + (mask * weight.unsqueeze(1)) @ counted)
            masks.append(mask)
        return torch.stack(masks, dim=1), {"sums": sums}

    def attractors(self, sums: Tensor) -> Tensor:
        """Where the attractors are, (streams, sources, size)."""
        return (self.anchor * self.anchors + sums[..., :-1]) / (self.anchor + sums[..., -1:])

    def remember(self, sums: Tensor) -> Tensor:
        """Fade what goes beyond the memory; below it, sums stay exactly as they are."""
        return sums * (self.memory / sums[..., -1:].clamp(min=self.memory))

    def loss(
        self, embeddings: Tensor, loudness: Tensor, mixture: Tensor, targets: Tensor
    ) -> Tensor:
        """Squared error of the masked mixture, relative to the mixture's energy.

        The sum of three: masks by the attractors of the ideal masks, which shapes the embeddings;
        masks by the anchors, and masks one k-means step later, which is how a stream begins and
        goes on. The anchors don't know which source is whose, so of the last two the best
        permutation counts.

        Parameters
        ----------
        embeddings, loudness
            As in :meth:`forward`.
        mixture, targets
            Spectra of the same bins, (streams, frames, channels, 2, bins) and
            (streams, frames, sources, channels, 2, bins).

        Returns
        -------
        Tensor
            Mean over streams.
        """
        counted = _counted(embeddings).flatten(1, 2)
        embeddings = counted[..., :-1]
        power = mixture.square().sum(dim=(2, 3)).flatten(1)
        powers = targets.square().sum(dim=(3, 4)).transpose(1, 2).flatten(2)
        common = (mixture.unsqueeze(2) * targets).sum(dim=(3, 4)).transpose(1, 2).flatten(2)

        def errors(masks: Tensor) -> Tensor:
            """Of every estimate against every target, (streams, estimates, targets)."""
            own = masks.square() @ power.unsqueeze(-1)
            return own - 2 * masks @ common.mT + powers.sum(dim=-1).unsqueeze(1)

        heard = power > 10 ** (-HEARD_DB / 10) * power.amax(dim=-1, keepdim=True)
        ideal = powers == powers.amax(dim=1, keepdim=True)
        sums = (ideal & heard.unsqueeze(1)).float() @ counted
        known = _masks(embeddings, sums[..., :-1] / sums[..., -1:].clamp(min=1.0))
        first = _masks(embeddings, self.anchors)
        step = self.remember((first * loudness.flatten(1).unsqueeze(1)) @ counted)
        second = _masks(embeddings, self.attractors(step))
        blind = errors(first) + errors(second)
        every = range(blind.shape[1])
        orders = [blind[:, every, order].sum(dim=1) for order in permutations(every)]
        total = errors(known).diagonal(dim1=1, dim2=2).sum(dim=1) + torch.stack(orders).amin(dim=0)
        return (total / (power.sum(dim=1) + 1e-6)).mean()


def _counted(embeddings: Tensor) -> Tensor:
    """Embeddings with a 1 at their end, so that one product sums them and their weights."""
    return torch.cat([embeddings, torch.ones_like(embeddings[..., :1])], dim=-1)


def _masks(embeddings: Tensor, attractors: Tensor) -> Tensor:
    """Masks (streams, sources, n) of embeddings (streams, n, size)."""
    return torch.softmax(attractors @ embeddings.mT, dim=-2)
