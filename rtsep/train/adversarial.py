"""The loss "adversarial": an error, and a discriminator that learns beside the model.

S. Pascual, A. Bonafonte, J. Serrà, "SEGAN: Speech Enhancement Generative Adversarial Network",
Interspeech 2017: the losses of the least-squares GAN (Mao et al., ICCV 2017) plus 100 times the
absolute error. The discriminator has four layers of stride 4, which cost a tenth of the paper's
eleven of stride 2, and normalises over channels and time, in place of the virtual batch norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.streaming import Streaming

ERROR = 100.0
"""Weight of the absolute error beside the discriminator's loss."""
LEARNING_RATE = 2e-4
"""Of the discriminator's RMSprop, as in the paper."""
FILTERS = (16, 32, 64, 128)
KERNEL, STRIDE, SLOPE = 31, 4, 0.3


class Discriminator(nn.Module):
    """Scores whether the sources beside a mixture are real (1) or estimates (0).

    Parameters
    ----------
    channels
        Channels of the mixture and all judged sources together.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [channels, *FILTERS]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes, FILTERS, strict=False):
            layers.append(nn.Conv1d(inputs, outputs, KERNEL, STRIDE, KERNEL // 2))
            layers += [nn.GroupNorm(1, outputs), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv1d(FILTERS[-1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map samples (streams, channels, samples) to a score, (streams,)."""
        y: Tensor = self.layers(x).mean(dim=(1, 2))
        return y


class Adversarial:
    """Runs a model, teaches the discriminator, and returns the loss of the model.

    The last source is not judged, as it is often the rest of the mixture. The discriminator belongs
    to this process and this run: a resumed run begins with a new one.

    Parameters
    ----------
    learning_rate
        Learning rate of the discriminator.
    """

    def __init__(self, learning_rate: float = LEARNING_RATE) -> None:
        self.learning_rate = learning_rate
        self.discriminator: Discriminator | None = None

    def __call__(
        self, model: Streaming, frontend: Frontend, mixture: Tensor, target: Tensor
    ) -> Tensor:
        """Return the loss for mixtures (streams, samples, channels)."""
        estimate = separate(model, frontend, mixture)
        real, made = (self.beside(mixture, sources) for sources in (target, estimate))
        if self.discriminator is None:
            self.discriminator = Discriminator(real.shape[1]).to(real.device)
            weights = self.discriminator.parameters()
            self.optimizer = torch.optim.RMSprop(weights, self.learning_rate)
        judge = self.discriminator
        self.optimizer.zero_grad()
        scores = judge(real), judge(made.detach())
        ((scores[0] - 1).square().mean() + scores[1].square().mean()).div(2).backward()
        self.optimizer.step()
        own = mixture.shape[2]
        error = F.l1_loss(made[:, own:], real[:, own:])
        loss: Tensor = (judge(made) - 1).square().mean() / 2 + ERROR * error
        return loss

    @torch.no_grad()
    def accuracy(self, mixture: Tensor, target: Tensor, estimate: Tensor) -> float:
        """Return the share of sources and estimates that the discriminator tells apart."""
        assert self.discriminator is not None, "it has not been trained"
        real, made = (self.discriminator(self.beside(mixture, s)) for s in (target, estimate))
        return float(torch.cat([real > 0.5, made <= 0.5]).float().mean())

    def beside(self, mixture: Tensor, sources: Tensor) -> Tensor:
        """Return what the discriminator reads, relative to the mixture's RMS.

        Parameters
        ----------
        mixture, sources
            (streams, samples, channels) and (streams, samples, sources, channels).

        Returns
        -------
        Tensor
            (streams, all channels, samples).
        """
        judged = torch.cat([mixture.unsqueeze(2), sources[:, :, :-1]], dim=2)
        level = mixture.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-5
        return judged.flatten(2).transpose(1, 2) / level
