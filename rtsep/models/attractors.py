"""Clustering of time-frequency bins by attractors, live and in training.

Z. Chen, Y. Luo, N. Mesgarani, "Deep Attractor Network for Single-Microphone Speaker Separation",
ICASSP 2017, arXiv 1611.08930; with learned starts as in Y. Luo, Z. Chen, N. Mesgarani,
"Speaker-Independent Speech Separation with Deep Attractor Network", IEEE/ACM TASLP 2018.

Every bin has an embedding, every source an attractor in the same space; the masks are a softmax
over sources of their inner products. In training the attractors are the mean embeddings of the bins
where each source is the loudest. Live, these bins are unknown: each attractor starts from a learned
*anchor* and follows the bins that its own mask selects, one soft k-means step per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from rtsep.nn.masks import shares_of
from rtsep.nn.streaming import State

HEARD_DB = 40.0
"""In training, bins this far below the loudest one do not count for the attractors, in dB."""


class Attractors(nn.Module):
    """Maps embeddings to masks, with one attractor per source.

    An attractor is the weighted mean of its anchor and of the embeddings that its mask selected. It
    only changes while its source sounds, not in silence or while others sound, so a source returns
    to its output channel. The anchor never loses its weight, so attractors do not change places.

    Parameters
    ----------
    sources, size
        Number of attractors, and of their dimensions.
    anchor
        Weight of the anchor, in bins of full loudness.
    memory
        Largest weight of embeddings per source, in bins of full loudness; older ones fade.
    """

    def __init__(
        self, sources: int, size: int, anchor: float = 2000.0, memory: float = 20000.0
    ) -> None:
        super().__init__()
        self.anchor = anchor
        self.memory = memory
        self.anchors = nn.Parameter(torch.randn(sources, size) / size**0.5)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the sums of embeddings of each source and, last, of their weights."""
        sources, size = self.anchors.shape
        return {"sums": torch.zeros(streams, sources, size + 1)}

    def forward(self, embeddings: Tensor, loudness: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the masks of each frame by the attractors after the frame before it.

        Parameters
        ----------
        embeddings
            (streams, frames, bins, size).
        loudness
            Weight of each bin, 0 (silent) to 1, (streams, frames, bins).
        state
            See :meth:`initial_state`.

        Returns
        -------
        (Tensor, State)
            Masks (streams, frames, sources, bins) with a sum of 1, and the next state.
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
        """Return the attractors, (streams, sources, size)."""
        return (self.anchor * self.anchors + sums[..., :-1]) / (self.anchor + sums[..., -1:])

    def remember(self, sums: Tensor) -> Tensor:
        """Scale sums whose weight exceeds the memory."""
        return sums * (self.memory / sums[..., -1:].clamp(min=self.memory))

    def loss(
        self,
        embeddings: Tensor,
        loudness: Tensor,
        mixture: Tensor,
        targets: Tensor,
        orders: Sequence[Sequence[int]] = (),
    ) -> Tensor:
        """Return the squared error of the masked mixture, relative to the mixture's energy.

        It is the sum of three errors: of masks by the attractors of the ideal masks; of masks by
        the anchors, as at the start of a stream; and of masks after one k-means step. For the last
        two, the order of the sources is arbitrary, so the best permutation counts.

        Parameters
        ----------
        embeddings, loudness
            As in :meth:`forward`.
        mixture, targets
            Spectra of the same bins, (streams, frames, channels, 2, bins) and
            (streams, frames, sources, channels, 2, bins).
        orders
            Orders that the sources can be in; all of them if none are given.

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
            """Return the errors of all pairs, (streams, estimates, targets)."""
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
        found = [blind[:, every, order].sum(dim=1) for order in orders or permutations(every)]
        total = errors(known).diagonal(dim1=1, dim2=2).sum(dim=1) + torch.stack(found).amin(dim=0)
        return (total / (power.sum(dim=1) + 1e-6)).mean()


def _counted(embeddings: Tensor) -> Tensor:
    """Append a 1 to each embedding, so that one product sums embeddings and weights."""
    return torch.cat([embeddings, torch.ones_like(embeddings[..., :1])], dim=-1)


def _masks(embeddings: Tensor, attractors: Tensor) -> Tensor:
    """Return masks (streams, sources, n) of embeddings (streams, n, size)."""
    shares, total = shares_of(attractors @ embeddings.mT)
    return (shares / total)[0]
