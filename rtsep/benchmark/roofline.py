"""Time a model's calls and compare them with the peak of one core."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from rtsep.dsp.kernel import kernel
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.model_step import make_step
from rtsep.runtime.tape_step import TapeStep
from rtsep.runtime.timing import Durations
from rtsep.spec import Float32

_SIDE = 512
"""Side of the multiplied matrices: 1 MB each, so arithmetic dominates."""


@dataclass(frozen=True)
class Speed:
    """Speed of back-to-back calls of a model on one core.

    Attributes
    ----------
    tape
        Whether the model runs on the tape, not in ONNX Runtime.
    median_s, p99_s
        Time of a call.
    real_time_factor
        Median time over the duration of the audio of a call.
    roofline_share
        See :func:`share`.
    """

    tape: bool
    median_s: float
    p99_s: float
    real_time_factor: float
    roofline_share: float


def core_peak(seconds: float = 0.3) -> float:
    """Measure the peak of one core in FLOP/s: the best of repeated matrix products.

    ONNX Runtime computes them with one thread, as for the models.
    """
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, _SIDE, _SIDE), dtype=np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, left.shape) for name in "xy")
    product = helper.make_node("MatMul", ["x", "weight"], ["y"])
    weight = numpy_helper.from_array(right, "weight")
    graph = helper.make_graph([product], "product", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    best, end = math.inf, time.perf_counter() + seconds
    while math.isinf(best) or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"x": left})
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best


def core_bandwidth(size_bytes: int = 1 << 28, seconds: float = 0.3) -> float:
    """Measure the read bandwidth of one core in bytes/s: the best of repeated sums.

    Parameters
    ----------
    size_bytes
        Size of the array; if it fits a cache, the result is the bandwidth of that cache.
    seconds
        Duration of the measurement.
    """
    values = np.ones(size_bytes // 4, np.float32)
    total(values)
    best, end = math.inf, time.perf_counter() + seconds
    while math.isinf(best) or time.perf_counter() < end:
        start = time.perf_counter()
        total(values)
        best = min(best, time.perf_counter() - start)
    return values.nbytes / best


@kernel(fastmath=True)
def total(values: Float32) -> float:
    """Sum in any order, so that reading dominates."""
    result = np.float32(0.0)
    for i in range(values.size):  # numba vectorises this loop, but not an iterator
        result += values[i]
    return float(result)


def traffic(bundle: Bundle) -> int:
    """Return the bytes that a call for one stream reads at least: all weights and its states."""
    weights, _ = bundle.cost()
    return 4 * (weights + sum(math.prod(s.shape) * len(s.inputs) for s in bundle.states.values()))


def share(bundle: Bundle, call_s: float, peak: float) -> float:
    """Return the floating-point operations of a call over the peak in the same time.

    Williams, Waterman, Patterson: Roofline, Communications of the ACM 2009; the roof is ``peak``
    in FLOP/s, see :func:`core_peak`. A multiply-accumulate is two operations.
    """
    _, macs = bundle.cost()
    return 2 * macs * bundle.spec.step_length / bundle.spec.sample_rate / (call_s * peak)


def speed(bundle: Bundle, peak: float, seconds: float = 0.5) -> Speed:
    """Time calls on noise.

    Raises
    ------
    BundleError
        The bundle does not run.
    """
    step, times = make_step(bundle), Durations()
    rng = np.random.default_rng(0)
    step.mixture[:] = rng.standard_normal(step.mixture.shape, dtype=np.float32)
    end = time.perf_counter() + seconds
    while not times.count or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.add(time.perf_counter() - start)
    median_s = times.percentile_s(50)
    return Speed(
        isinstance(step, TapeStep),
        median_s,
        times.percentile_s(99),
        median_s * bundle.spec.sample_rate / bundle.spec.step_length,
        share(bundle, median_s, peak),
    )
