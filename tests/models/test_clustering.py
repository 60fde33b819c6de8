"""Deep clustering: the paper's loss, and that only its own models take it."""

import pytest
import torch

from rtsep.models import build
from rtsep.models.clustering import affinity_error
from rtsep.nn.frontend import Frontend
from rtsep.train.losses import named
from tests.support.miniatures import MINIATURES, batches


def test_affinity_error_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(1, 30, 5), dim=-1)
    y = torch.nn.functional.one_hot(torch.randint(2, (1, 30))).float()
    pairs = (v @ v.mT - y @ y.mT).square()
    weight = torch.rand(1, 30)
    expected = (weight.mT * weight * pairs[0]).sum() / weight.sum() ** 2
    assert float(affinity_error(v, y, weight)) == pytest.approx(float(expected), rel=1e-4)
    assert float(affinity_error(y, y, weight)) == pytest.approx(0.0, abs=1e-6)


def test_where_clusters_start_does_not_move_the_embeddings() -> None:
    spec, options = MINIATURES["clustering"]
    torch.manual_seed(0)
    model, frontend = build("clustering", spec, options), Frontend(spec)
    mixture, target = next(batches(0))
    before = model.attractors.anchors.detach().clone()
    gradients = []
    for scale in (1.0, 5.0):
        model.attractors.anchors.data = scale * before
        model.zero_grad()
        named("clustering")(model, frontend, mixture, target).backward()
        assert model.attractors.anchors.grad.abs().sum() > 0
        gradients.append(model.out.weight.grad.clone())
    assert torch.equal(*gradients)


def test_the_loss_is_for_models_that_cluster() -> None:
    spec, options = MINIATURES["openunmix"]
    mixture, target = next(batches(0))
    with pytest.raises(ValueError, match="loss 'clustering' is for model 'clustering'"):
        named("clustering")(build("openunmix", spec, options), Frontend(spec), mixture, target)
