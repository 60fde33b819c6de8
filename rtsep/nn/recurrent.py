"""A gated recurrent unit whose weights are shared by many lanes, with fast training on CPUs.

The unit is that of Cho et al. 2014 in the variant of cuDNN and ONNX, reset after the product::

    r, z = sigmoid(W x + U h)          n = tanh(W x + r * (U h + b))
    h'   = n + z * (h - n)

There are three implementations, which tests compare, gradients included: exported graphs contain
one ONNX ``GRU`` node; in training on the CPU, in float32 or bfloat16, a compiled kernel runs whole
sequences with one matrix product per step for all lanes; otherwise torch operations run in a loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtsep.dsp.kernel import kernel
from rtsep.dsp.logistic import logistic, tanh
from rtsep.nn.streaming import State, Streaming


class Recurrent(nn.Module):
    """The unit along axis 1, for many lanes.

    Parameters
    ----------
    inputs, hidden
        Sizes of the input and the hidden vector of one lane.
    reverse
        Run from the last step to the first.
    """

    def __init__(self, inputs: int, hidden: int, reverse: bool = False) -> None:
        super().__init__()
        self.hidden, self.reverse = hidden, reverse
        self.gates = nn.Linear(inputs, 3 * hidden)
        bound = hidden**-0.5
        self.recurrent = nn.Parameter(torch.empty(3 * hidden, hidden).uniform_(-bound, bound))
        self.shift = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Process all steps.

        Parameters
        ----------
        x
            (batch, steps, lanes, inputs).
        h
            Hidden vectors before the first step, (batch, lanes, hidden).

        Returns
        -------
        Tensor
            Hidden vectors after each step, (batch, steps, lanes, hidden).
        """
        if torch.onnx.is_in_onnx_export():
            return _node([self], x, h)
        gates = self.gates(x)
        half, single = gates.dtype == torch.bfloat16, gates.dtype == torch.float32
        if gates.device.type == "cpu" and (half or (single and gates.requires_grad)):
            if self.reverse:
                gates = gates.flip(1)
            y: Tensor = _scan(gates, h, self.recurrent, self.shift)[0]
            return y.flip(1) if self.reverse else y
        steps = list(gates.unbind(1))
        if self.reverse:
            steps.reverse()
        for t, step in enumerate(steps):
            reset, update, new = step.split(self.hidden, dim=-1)
            r, z, n = F.linear(h, self.recurrent).split(self.hidden, dim=-1)
            new = torch.tanh(new + torch.sigmoid(reset + r) * (n + self.shift))
            h = new + torch.sigmoid(update + z) * (h - new)
            steps[t] = h
        if self.reverse:
            steps.reverse()
        return torch.stack(steps, dim=1)


def both_ways(up: Recurrent, down: Recurrent, x: Tensor) -> Tensor:
    """Run one unit from the first step to the last, and another one back, both from zeros.

    Shapes: (batch, steps, lanes, inputs) -> (batch, steps, lanes, 2 * hidden).
    """
    if torch.onnx.is_in_onnx_export():
        return _node([up, down], x, None)
    h = x.new_zeros(x.shape[0], x.shape[2], up.hidden, dtype=torch.float32)
    return torch.cat([up(x, h), down(x, h)], dim=-1)


def _node(units: list[Recurrent], x: Tensor, h: Tensor | None) -> Tensor:
    """The units as one ONNX node, which wants steps first and the gates in another order."""

    def ordered(weights: Tensor) -> Tensor:
        reset, update, new = weights.chunk(3)
        return torch.cat([update, reset, new])

    batch, steps, lanes, _ = x.shape
    size, ways = units[0].hidden, len(units)
    direction = "reverse" if units[0].reverse else "forward"
    if ways == 2:
        direction = "bidirectional"
    zeros = torch.zeros(2 * size)
    biases = [torch.cat([ordered(unit.gates.bias), zeros, unit.shift]) for unit in units]
    y, _ = torch.onnx.ops.symbolic_multi_out(
        "GRU",
        (
            x.transpose(0, 1).flatten(1, 2),
            torch.stack([ordered(unit.gates.weight) for unit in units]),
            torch.stack([ordered(unit.recurrent) for unit in units]),
            torch.stack(biases),
            None,
            None if h is None else h.flatten(0, 1).unsqueeze(0),
        ),
        attrs={
            "hidden_size": size,
            "linear_before_reset": 1,
            "direction": direction,
        },
        dtypes=(x.dtype, x.dtype),
        shapes=((steps, ways, batch * lanes, size), (ways, batch * lanes, size)),
        version=14,
    )
    return y.transpose(1, 2).reshape(steps, batch, lanes, ways * size).transpose(0, 1)


class SharedGRU(Streaming):
    """The unit over time, with the same weights for every lane (band).

    Shapes: (streams, frames, lanes, inputs) -> (streams, frames, lanes, hidden).
    """

    def __init__(self, lanes: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lanes = lanes
        self.unit = Recurrent(inputs, hidden)

    def initial_state(self, streams: int) -> State:
        """Return zeros for the hidden vectors."""
        return {"hidden": torch.zeros(streams, self.lanes, self.unit.hidden)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Process the frames of ``x``."""
        y = self.unit(x, state["hidden"])
        return y, {"hidden": y[:, -1].float()}


@torch.library.custom_op("rtsep::scan", mutates_args=())
def _scan(gates: Tensor, h: Tensor, recurrent: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Run the recurrence over all frames, in float32; gates and results are float32 or bfloat16.

    Returns the hidden vectors, and what the gradients need: gates after their functions, and inner
    products. It is an operator of its own, so that torch.compile does not look inside.
    """
    y, kept = _shapes(gates, h, recurrent, shift)
    weights = np.ascontiguousarray(recurrent.numpy().T)
    _forward(
        _bits(gates.contiguous()), h.contiguous().numpy(), weights, shift.numpy(),
        _bits(y), _bits(kept),
    )  # fmt: skip
    return y, kept


@_scan.register_fake
def _shapes(gates: Tensor, h: Tensor, recurrent: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    *outer, three = gates.shape
    return gates.new_empty(*outer, three // 3), gates.new_empty(*outer, 4 * (three // 3))


@torch.library.custom_op("rtsep::scan_back", mutates_args=())
def _scan_back(
    gradient: Tensor, y: Tensor, kept: Tensor, h: Tensor, recurrent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of gates, of inner products, and of the first hidden vectors."""
    gates, products, first = _gradients(gradient, y, kept, h, recurrent)
    _backward(
        _bits(gradient.to(y.dtype).contiguous()), _bits(y), _bits(kept), h.contiguous().numpy(),
        recurrent.contiguous().numpy(), _bits(gates), _bits(products), first.numpy(),
    )  # fmt: skip
    return gates, products, first


@_scan_back.register_fake
def _gradients(
    gradient: Tensor, y: Tensor, kept: Tensor, h: Tensor, recurrent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    *outer, hidden = y.shape
    first = h.new_empty(outer[0], outer[2], hidden)
    return y.new_empty(*outer, 3 * hidden), y.new_empty(*outer, hidden), first


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    _, h, recurrent, _ = inputs
    ctx.save_for_backward(*output, h, recurrent)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    y, kept, h, recurrent = ctx.saved_tensors
    hidden = y.shape[-1]
    gates, products, first = _scan_back(gradient, y, kept, h, recurrent)
    before = torch.cat([h.to(y.dtype).unsqueeze(1), y[:, :-1]], dim=1).flatten(0, 2)
    flat, inner = gates.flatten(0, 2), products.flatten(0, 2)
    weights = torch.cat([flat[:, : 2 * hidden].T @ before, inner.T @ before]).float()
    return gates, first, weights, inner.sum(dim=0, dtype=torch.float32)


_scan.register_autograd(_differentiate, setup_context=_keep)


def _bits(x: Tensor) -> np.ndarray:
    """View float32, or bfloat16, which is the upper half of float32, as integers for kernels."""
    return x.detach().view(torch.uint16 if x.dtype == torch.bfloat16 else torch.uint32).numpy()


@kernel(forceinline=True)
def _widen(bits: Any, words: Any, size: int) -> None:
    missing = np.uint32(32 - 8 * bits.itemsize)
    for c in range(size):
        words[c] = np.uint32(bits[c]) << missing


@kernel(forceinline=True)
def _narrow(words: Any, bits: Any, size: int) -> None:
    """Copy float32, or round it to bfloat16, to nearest, ties to even."""
    missing = np.uint32(32 - 8 * bits.itemsize)
    below, odd = np.uint32(0x7FFF if missing else 0), np.uint32(1 if missing else 0)
    for c in range(size):
        w = words[c]
        bits[c] = (w + below + ((w >> missing) & odd)) >> missing


@kernel(nogil=True, fastmath=True, error_model="numpy")
def _forward(gates: Any, first: Any, weights: Any, shift: Any, y: Any, kept: Any) -> None:
    streams, frames, lanes, three = gates.shape
    size = three // 3
    h = first.copy().reshape(streams * lanes, size)
    product = np.empty((streams * lanes, three), np.float32)
    g, k = np.empty(three, np.float32), np.empty(4 * size, np.float32)
    g_bits, k_bits, h_bits = g.view(np.uint32), k.view(np.uint32), h.view(np.uint32)
    for t in range(frames):
        np.dot(h, weights, product)
        for s in range(streams):
            for lane in range(lanes):
                i = s * lanes + lane
                _widen(gates[s, t, lane], g_bits, three)
                u, v = product[i], h[i]
                for c in range(2 * size):
                    k[c] = logistic(g[c] + u[c])
                for c in range(size):
                    m = u[2 * size + c] + shift[c]
                    n = tanh(g[2 * size + c] + k[c] * m)
                    k[2 * size + c] = n
                    k[3 * size + c] = m
                    v[c] = n + k[size + c] * (v[c] - n)
                _narrow(k_bits, kept[s, t, lane], 4 * size)
                _narrow(h_bits[i], y[s, t, lane], size)


@kernel(nogil=True, fastmath=True, error_model="numpy")
def _backward(
    gradient: Any,
    y: Any,
    kept: Any,
    first: Any,
    recurrent: Any,
    gates: Any,
    products: Any,
    out: Any,
) -> None:
    streams, frames, lanes, size = y.shape
    one = np.float32(1.0)
    d = np.zeros((streams * lanes, size), np.float32)
    back = np.zeros((streams * lanes, size), np.float32)
    inner = np.empty((streams * lanes, 3 * size), np.float32)
    inner_bits = inner.view(np.uint32)
    k, a = np.empty(4 * size, np.float32), np.empty(size, np.float32)
    before, dn = np.empty(size, np.float32), np.empty(size, np.float32)
    k_bits, a_bits = k.view(np.uint32), a.view(np.uint32)
    before_bits, dn_bits = before.view(np.uint32), dn.view(np.uint32)
    for t in range(frames - 1, -1, -1):
        for s in range(streams):
            for lane in range(lanes):
                i = s * lanes + lane
                _widen(kept[s, t, lane], k_bits, 4 * size)
                _widen(gradient[s, t, lane], a_bits, size)
                if t:
                    _widen(y[s, t - 1, lane], before_bits, size)
                else:
                    before[:] = first[s, lane]
                w, e, b = inner[i], d[i], back[i]
                for c in range(size):
                    r, z, n, m = k[c], k[size + c], k[2 * size + c], k[3 * size + c]
                    h = e[c] + b[c] + a[c]
                    new = h * (one - z) * (one - n * n)
                    dn[c] = new
                    w[c] = new * m * r * (one - r)
                    w[size + c] = h * (before[c] - n) * z * (one - z)
                    w[2 * size + c] = new * r
                    e[c] = h * z
                _narrow(inner_bits[i], gates[s, t, lane], 2 * size)
                _narrow(dn_bits, gates[s, t, lane, 2 * size :], size)
                _narrow(inner_bits[i, 2 * size :], products[s, t, lane], size)
        np.dot(inner, recurrent, back)
    out[:] = (d + back).reshape(out.shape)
