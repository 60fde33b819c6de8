"""Train one model in several processes started by ``torchrun``, or in a single process.

Each process makes its share of every batch; gradients and loss are averaged in one message.
DistributedDataParallel is not used: it wraps ``forward``, and some losses call other methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy.linalg import get_blas_funcs
from threadpoolctl import threadpool_limits
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Group:
    """The processes that train together.

    Attributes
    ----------
    rank, size
        Index of this process, and the number of processes.
    device
        Device of this process.
    """

    rank: int
    size: int
    device: torch.device

    def average(self, loss: Tensor, model: nn.Module) -> Tensor:
        """Average gradients and floating-point buffers over all processes.

        Returns
        -------
        Tensor
            The mean loss, (); NaN if it is NaN in any process, so that all stop together.
        """
        mean = loss.detach().clone()
        if self.size > 1:
            shared = [mean, *(p.grad for p in model.parameters() if p.grad is not None)]
            shared += [b for b in model.buffers() if b.is_floating_point()]
            message = torch.cat([tensor.reshape(-1) for tensor in shared])
            distributed.all_reduce(message)
            message /= self.size
            parts = message.split([tensor.numel() for tensor in shared])
            for tensor, part in zip(shared, parts, strict=True):
                tensor.copy_(part.view_as(tensor))
        return mean

    def agreed(self, wish: bool, share: float) -> tuple[bool, float]:
        """Return whether any process wishes to stop, and the largest share; the same in all."""
        both = torch.tensor([float(wish), share], dtype=torch.float64, device=self.device)
        if self.size > 1:
            distributed.all_reduce(both, distributed.ReduceOp.MAX)
        return bool(both[0]), float(both[1])


@contextmanager
def group(device: str | None = None) -> Iterator[Group]:
    """Join the process group of ``torchrun``, or form a group of one.

    Parameters
    ----------
    device
        Name of a torch device; a CUDA GPU if there is one, else the CPU.
    """
    rank, size = (
        int(os.environ.get(name, value)) for name, value in (("RANK", 0), ("WORLD_SIZE", 1))
    )
    cuda = torch.cuda.is_available() if device is None else device.startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK", 0))
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if size == 1:
        yield Group(0, 1, where)
        return
    if cuda:
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Group(rank, size, where)
        distributed.barrier()  # a process that leaves before the others can make them abort
    finally:
        distributed.destroy_process_group()


def limit_threads(count: int) -> None:
    """Set the number of threads of this process, of torch and of the BLAS that kernels call.

    Threads of the BLAS wait actively for the next of many small products; beside other programs
    that makes a training step twice as long.
    """
    torch.set_num_threads(count)
    get_blas_funcs("gemm")  # loads the library, which can only then be limited
    threadpool_limits(count, user_api="blas")
