"""Run a model in ONNX Runtime, with one call per chunk over fixed buffers."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from rtsep.controls import PREFIX
from rtsep.errors import BundleError
from rtsep.runtime import states
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.memory_plan import aligned
from rtsep.spec import Float32

MAX_MEMORY = 1 << 29
"""Memory limit in bytes: of all graphs of this process, and of each one's state and frames."""
MAX_START_S = 4.0
"""Limit of the time of a graph's first three calls, in seconds."""
CPU = "CPUExecutionProvider"

Seen = list[tuple[Float32, Float32]]
"""Mixture and sources of the first calls."""

onnxruntime.set_default_logger_severity(4)  # errors are raised, not also logged
# A small graph can need any amount of memory, so ONNX Runtime's arena is limited.
onnxruntime.create_and_register_allocator(
    onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    ),
    onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY}),
)


class OrtStep:
    """A :class:`rtsep.spec.Step` in ONNX Runtime: fill ``mixture``, call, read ``sources``.

    States are kept in rings, and all positions of the rings are bound in advance, so a call copies
    and allocates nothing. A call releases the interpreter lock.

    Parameters
    ----------
    bundle
        The model.
    streams
        Number of independent streams.
    threads
        Threads of a call; more than 1 is rarely faster for single frames.
    providers
        ONNX Runtime execution providers by name, in order of preference.
    simplified
        File for the graph with folded constants and fixed sizes; if given, the graph is not
        optimised further.

    Attributes
    ----------
    simplified
        File of the simplified graph; None if it could not be written.
    controls
        Values of the controls by name, (streams, values); they may be set between two calls.
    program
        The states, without operations: kernels leave the call to Python.
    seen
        Mixture and sources of the first calls.

    Raises
    ------
    BundleError
        ONNX Runtime rejects the graph, a provider is missing, the output for silence or noise is
        not finite, or the graph needs too much time or memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        streams: int = 1,
        threads: int = 1,
        providers: Sequence[str] = (CPU,),
        simplified: Path | None = None,
    ) -> None:
        self.bundle = bundle
        self._name = bundle.path or bundle.metadata["name"]
        try:
            self._session = self._open(streams, threads, providers, simplified)
        except BundleError:
            if simplified is None:
                raise
            simplified = None  # the file could not be written
            self._session = self._open(streams, threads, providers, None)
        self.simplified = simplified
        self._allocate(streams)
        try:
            turns = range(self.program.cursors[interpreter.TURNS])
            self._bindings = [self._bind(turn) for turn in turns]
            self.seen = self._check()
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(f"{self._name}: the graph does not run: {reason(error)}") from None
        self.mixture[:] = 0.0
        self.reset()

    def _open(
        self, streams: int, threads: int, providers: Sequence[str], simplified: Path | None
    ) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry(
            "optimization.constant_folding_max_output_size_in_bytes", str(MAX_MEMORY >> 3)
        )
        options.add_free_dimension_override_by_name("streams", streams)
        if simplified is not None:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(simplified)
        if providers[0] not in onnxruntime.get_available_providers():
            raise BundleError(f"{providers[0]} is not available here; leave providers at the CPU")
        try:
            session = onnxruntime.InferenceSession(
                self.bundle.graph,
                options,
                providers=list(providers),
                enable_fallback=0,  # the fallback prints
            )
        except Exception as error:  # ONNX Runtime raises its own types, bare RuntimeError too
            text = reason(error)
            raise BundleError(f"{self._name}: ONNX Runtime rejects the graph: {text}") from None
        if session.get_providers()[0] != providers[0]:
            raise BundleError(f"{providers[0]} is not available here; leave providers at the CPU")
        return session

    def _allocate(self, streams: int) -> None:
        """Allocate mixture, sources and the rings of all states."""
        spec, declared = self.bundle.spec, self.bundle.states
        frame = (spec.channels, *spec.frame_shape)
        mixture = (streams, spec.chunk, *frame)
        sources = (streams, spec.chunk, len(spec.sources), *frame)
        shapes = {
            key: (positions, streams, *declared[key].shape)
            for key, positions in states.ring_lengths(declared).items()
        }
        sizes = {key: math.prod(shape) for key, shape in shapes.items()}
        wanted = 4 * (math.prod(mixture) + math.prod(sources) + sum(sizes.values()))
        if wanted > MAX_MEMORY:
            raise BundleError(
                f"{self._name}: state and frames of {streams} streams take {wanted >> 20} MiB, "
                f"more than the limit of {MAX_MEMORY >> 20}"
            )
        self.mixture, self.sources = np.zeros(mixture, np.float32), np.zeros(sources, np.float32)
        self.controls = {
            name: np.tile(np.array(control.default, np.float32), (streams, 1))
            for name, control in self.bundle.controls.items()
        }
        memory = np.zeros(sum(map(aligned, sizes.values())), np.float32)
        self._rings: dict[str, Float32] = {}
        start = 0
        for key, shape in shapes.items():
            self._rings[key] = memory[start : start + sizes[key]].reshape(shape)
            start += aligned(sizes[key])
        self.program = states.make_program(streams, declared, self._rings, memory)

    def _bind(self, turn: int) -> onnxruntime.IOBinding:
        """Make the binding of one position of the rings."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("mixture", self.mixture)
        for name, values in self.controls.items():
            binding.bind_cpu_input(PREFIX + name, values)
        outputs = {"sources": self.sources}
        for key, ring in self._rings.items():
            for calls, name in self.bundle.states[key].inputs.items():
                binding.bind_cpu_input(name, ring[(turn - calls) % len(ring)])
            outputs[f"next_{key}"] = ring[turn % len(ring)]
        for key, array in outputs.items():
            binding.bind_output(key, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding

    def _check(self) -> Seen:
        """Run the first calls, which warm up the graph, and check their output and time."""
        noise = np.random.default_rng(0).standard_normal(self.mixture.shape, np.float32)
        watched = onnxruntime.RunOptions()
        clock = threading.Timer(MAX_START_S, setattr, (watched, "terminate", True))
        clock.daemon = True
        clock.start()
        seen = []
        try:
            for turn, gain in enumerate((0.0, 1.0, 1.0)):
                np.multiply(noise, gain, out=self.mixture)
                self.sources[:] = np.nan
                binding = self._bindings[turn % len(self._bindings)]
                self._session.run_with_iobinding(binding, watched)
                if not np.all(np.isfinite(self.sources)):
                    told = "the output for silence or noise has NaN or Inf"
                    raise BundleError(f"{self._name}: {told}")
                seen.append((self.mixture.copy(), self.sources.copy()))
        except RuntimeError:
            if not watched.terminate:
                raise
            raise BundleError(
                f"{self._name}: three calls of the graph take more than {MAX_START_S:.0f} s"
            ) from None
        finally:
            clock.cancel()
        return seen

    def __call__(self) -> None:
        """Separate the chunk ``mixture`` to ``sources`` and advance the state."""
        cursors = self.program.cursors
        if not cursors[interpreter.SETTLED]:
            interpreter.forget(self.program)
        self._session.run_with_iobinding(self._bindings[cursors[interpreter.TURN]])
        cursors[interpreter.TURN] = (cursors[interpreter.TURN] + 1) % cursors[interpreter.TURNS]

    def reset(self, stream: int | None = None) -> None:
        """Set the state of one stream, or of all, to zeros."""
        states.reset(self.program, stream)


def reason(error: Exception) -> str:
    """Return the first line of ONNX Runtime's message, without source locations.

    Control characters are removed, because it quotes names of the graph.
    """
    line = next(iter(str(error).splitlines()), "")
    line = re.sub(r"\S*onnxruntime_src\S*:\d+ (\S.*?\) )?", "", line)
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", line)
    return "".join(c if c.isprintable() else "?" for c in line)[:300] or type(error).__name__
