"""The recurrent unit: plain operations, the training kernel and the exported node are equal."""

import warnings
from copy import deepcopy

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rtsep.nn.recurrent import Recurrent, SharedGRU, both_ways


def unit(reverse: bool = False) -> Recurrent:
    torch.manual_seed(0)
    made = Recurrent(5, 8, reverse)
    nn.init.normal_(made.shift)
    return made


def gradients(made: Recurrent, x: Tensor, h: Tensor, half: bool) -> tuple[Tensor, list[Tensor]]:
    x, h = x.clone().requires_grad_(), h.clone().requires_grad_()
    made.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, half):
        y = made(x, h)
    assert y.dtype == (torch.bfloat16 if half else x.dtype)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    (y.float() * weights).sum().backward()
    return y.detach().float(), [x.grad, h.grad, *(p.grad for p in made.parameters())]


def test_it_is_the_unit_of_torch() -> None:
    made = unit()
    reference = nn.GRU(5, 8, batch_first=True)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(made.gates.weight)
        reference.weight_hh_l0.copy_(made.recurrent)
        reference.bias_ih_l0.copy_(made.gates.bias)
        reference.bias_hh_l0.zero_()
        reference.bias_hh_l0[16:] = made.shift
    x, h = torch.randn(3, 11, 1, 5), torch.randn(3, 1, 8)
    expected, _ = reference(x[:, :, 0], h.transpose(0, 1).contiguous())
    torch.testing.assert_close(made(x, h)[:, :, 0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 0.02)])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_kernel_equals_plain_operations(reverse: bool, half: bool, tolerance: float) -> None:
    made = unit(reverse)
    x, h = torch.randn(3, 20, 4, 5), torch.randn(3, 4, 8)
    y, found = gradients(made, x, h, half)
    # In float64 the unit is the loop of torch operations.
    expected, right = gradients(deepcopy(made).double(), x.double(), h.double(), False)
    torch.testing.assert_close(y, expected, atol=tolerance, rtol=0)
    for mine, theirs in zip(found, right, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() < tolerance * theirs.abs().max()


@pytest.mark.parametrize("half", [False, True])
def test_a_network_is_compiled_in_one_piece_around_the_kernel(half: bool) -> None:
    made = unit()
    x, h = torch.randn(3, 20, 4, 5), torch.randn(3, 4, 8)
    y, right = gradients(made, x, h, half)
    made.compile(backend="aot_eager", fullgraph=True)
    compiled, found = gradients(made, x, h, half)
    torch.testing.assert_close(compiled, y)
    torch.testing.assert_close(found, right)


def exported(made: nn.Module, **inputs: Tensor) -> tuple[list[str], np.ndarray]:
    """The operations of the exported graph, and what it makes of the inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            made.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            **{"dynamo": True, "verbose": False, "opset_version": 18},
        )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    return [node.op_type for node in program.model_proto.graph.node], y


@pytest.mark.parametrize("reverse", [False, True])
def test_the_exported_node_equals_plain_operations(reverse: bool) -> None:
    made = unit(reverse)
    x, h = torch.randn(2, 7, 3, 5), torch.randn(2, 3, 8)
    _, y = exported(made, x=x, h=h)
    np.testing.assert_allclose(y, made(x, h).detach().numpy(), atol=1e-6)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = Recurrent(5, 8), Recurrent(5, 8, reverse=True)

    def forward(self, x: Tensor) -> Tensor:
        return both_ways(self.up, self.down, x)


def test_two_units_in_opposite_directions_are_one_node() -> None:
    made, x, h = Both(), torch.randn(2, 7, 3, 5), torch.zeros(2, 3, 8)
    expected = torch.cat([made.up(x, h), made.down(x, h)], dim=-1).detach()
    torch.testing.assert_close(made(x).detach(), expected)
    nodes, y = exported(made, x=x)
    assert nodes.count("GRU") == 1
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-6)


def test_state_goes_on_where_it_was() -> None:
    torch.manual_seed(0)
    shared, x = SharedGRU(4, 5, 8), torch.randn(2, 9, 4, 5)
    whole, last = shared(x, shared.initial_state(2))
    first, state = shared(x[:, :4], shared.initial_state(2))
    second, end = shared(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(end["hidden"], last["hidden"])
