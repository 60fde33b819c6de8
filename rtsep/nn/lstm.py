"""Long short-term memory over time, whose exported graph has one ONNX node per layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsep.nn.layers import full_precision
from rtsep.nn.streaming import State, Streaming


class LSTM(Streaming):
    """Several layers of LSTM units, each reading past and present only.

    Shapes: (streams, frames, inputs) -> (streams, frames, hidden).

    S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 1997.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)

    def initial_state(self, streams: int) -> State:
        """Return zeros for hidden vectors and memory cells, each (streams, layers, hidden)."""
        shape = streams, self.lstm.num_layers, self.lstm.hidden_size
        return {"hidden": torch.zeros(shape), "memory": torch.zeros(shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Process the frames of ``x``."""
        if torch.onnx.is_in_onnx_export():
            return self._nodes(x, state)
        first = (state[name].transpose(0, 1).contiguous() for name in ("hidden", "memory"))
        with full_precision(x.device.type):
            y, (hidden, memory) = self.lstm(x.float(), tuple(first))
        return y, {"hidden": hidden.transpose(0, 1), "memory": memory.transpose(0, 1)}

    def _nodes(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The same as ONNX nodes, which want frames first and the gates in another order."""

        def ordered(name: str, layer: int) -> Tensor:
            into, forget, cell, out = getattr(self.lstm, f"{name}_l{layer}").chunk(4)
            return torch.cat([into, out, forget, cell]).unsqueeze(0)

        size, frames = self.lstm.hidden_size, x.shape[1]
        hidden, memory = [], []
        y = x.transpose(0, 1)
        for layer in range(self.lstm.num_layers):
            bias = torch.cat([ordered("bias_ih", layer), ordered("bias_hh", layer)], dim=1)
            first = (state[n][:, layer].unsqueeze(0) for n in ("hidden", "memory"))
            streams = y.shape[1]
            whole, last, cells = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                (y, ordered("weight_ih", layer), ordered("weight_hh", layer), bias, None, *first),
                attrs={"hidden_size": size},
                dtypes=(y.dtype,) * 3,
                shapes=((frames, 1, streams, size), (1, streams, size), (1, streams, size)),
                version=14,
            )
            y = whole.squeeze(1)
            hidden.append(last)
            memory.append(cells)
        after = {"hidden": hidden, "memory": memory}
        return y.transpose(0, 1), {k: torch.cat(v).transpose(0, 1) for k, v in after.items()}
