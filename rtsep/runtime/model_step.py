"""A bundle's graph, one call per chunk over fixed buffers."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from rtsep.errors import BundleError
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.tape import interpreter
from rtsep.runtime.tape.graph import Tape
from rtsep.runtime.tape.interpreter import Program
from rtsep.runtime.tape.memory_plan import aligned
from rtsep.spec import Float32, Int64

MAX_MEMORY = 1 << 29
"""Bytes that the graphs of this process may work with, and those of each one's state and frames."""
MAX_START_S = 4.0
"""Longest that the first three calls of a graph may take together."""
TAPE_FRAMES = 2
"""Up to so many frames of all streams in a call, a tape is quicker than ONNX Runtime."""
TAPE_ERROR = 1e-4
"""Largest difference between both, relative to the largest value."""

onnxruntime.set_default_logger_severity(4)  # what goes wrong is an exception, said once
# A graph of a few lines can ask for any amount of memory: only ONNX Runtime sees it coming.
onnxruntime.create_and_register_allocator(
    onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    ),
    onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY}),
)


class ModelStep:
    """The model's :class:`rtsep.spec.Step`: fill ``mixture``, call, read ``sources``.

    What calls hand to later ones lies in rings, and every position of the rings is bound
    beforehand, so nothing is copied or allocated. ONNX Runtime runs the graph, without the
    interpreter's lock; of single frames of most models, a `rtsep.runtime.tape` does, in a third of
    the time, once it has been seen to give the same.

    Parameters
    ----------
    bundle
        The model.
    streams
        Independent streams carried side by side.
    threads
        Of one call; more than 1 rarely pays for single frames.
    providers
        ONNX Runtime execution providers by name, in order of preference; the CPU by default,
        which is faster than a GPU for frames of one stream.

    Raises
    ------
    BundleError
        ONNX Runtime refuses the graph, a provider is not there, silence or noise in does not give
        finite frames out, or that takes too long or too much memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        streams: int = 1,
        threads: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.bundle = bundle
        self._name = name = bundle.path or bundle.metadata["name"]
        self._streams = streams
        small = streams * bundle.spec.chunk <= TAPE_FRAMES
        may = small and threads == 1 and providers[0] == "CPUExecutionProvider"
        with _folder() as folder:
            laid = folder / "graph.onnx" if may and folder is not None else None
            try:
                self._session = self._open(streams, threads, providers, laid)
            except BundleError:
                if laid is None:
                    raise
                laid = None  # there is no room for it
                self._session = self._open(streams, threads, providers, None)
            self._allocate()
            try:
                self._bindings = self._bind()
                seen = self._check(name)
                if laid is not None and not self._lay(laid, seen):
                    self._session = self._open(streams, threads, providers, None)
                    self._bindings = self._bind()
            except BundleError:
                raise
            except Exception as error:
                raise BundleError(f"{name}: the graph does not run: {_reason(error)}") from None
        self.mixture[:] = 0.0
        self.reset()

    def _open(
        self, streams: int, threads: int, providers: Sequence[str], laid: Path | None
    ) -> onnxruntime.InferenceSession:
        """Open the graph; only simplified where it goes to a file, for `rtsep.runtime.tape`."""
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
        if laid is not None:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(laid)
        name = self._name
        if providers[0] not in onnxruntime.get_available_providers():
            raise BundleError(f"{providers[0]} is not available here; leave providers at the CPU")
        try:
            session = onnxruntime.InferenceSession(
                self.bundle.graph,
                options,
                providers=list(providers),
                enable_fallback=0,  # it prints
            )
        except Exception as error:  # ONNX Runtime raises its own types, bare RuntimeError too
            raise BundleError(f"{name}: ONNX Runtime refuses the graph: {_reason(error)}") from None
        if session.get_providers()[0] != providers[0]:
            raise BundleError(f"{providers[0]} is not available here; leave providers at the CPU")
        return session

    def _allocate(self) -> None:
        """Make mixture, sources and the rings of all states."""
        spec, streams = self.bundle.spec, self._streams
        frame = (spec.channels, *spec.frame_shape)
        mixture = (streams, spec.chunk, *frame)
        sources = (streams, spec.chunk, len(spec.sources), *frame)
        # Powers of two, so that all rings come round together; longer than the oldest call that is
        # still read, so that no call writes where it reads.
        rings = {
            key: (1 << max(state.inputs).bit_length(), streams, *state.shape)
            for key, state in self.bundle.states.items()
        }
        lengths = [math.prod(shape) for shape in rings.values()]
        if (size := 4 * (math.prod(mixture) + math.prod(sources) + sum(lengths))) > MAX_MEMORY:
            raise BundleError(
                f"{self._name}: state and frames of {streams} streams would take {size >> 20} MiB, "
                f"more than {MAX_MEMORY >> 20}"
            )
        self.mixture, self.sources = np.zeros(mixture, np.float32), np.zeros(sources, np.float32)
        memory = np.zeros(sum(map(aligned, lengths)), np.float32)
        self._rings: dict[str, Float32] = {}
        start = 0
        for (key, shape), length in zip(rings.items(), lengths, strict=True):
            self._rings[key] = memory[start : start + length].reshape(shape)
            start += aligned(length)
        nothing = np.zeros((0, interpreter.WIDTH), np.int64), np.zeros((0, 2), np.float32)
        self._program = self._with_states(memory, *nothing)

    def _with_states(self, memory: Float32, operations: Int64, parameters: Float32) -> Program:
        """Put operations, if there are any, and the rings in the memory together."""
        reads = []
        for key, ring in self._rings.items():
            base = (ring.ctypes.data - memory.ctypes.data) // 4
            steps = [step // 4 for step in ring.strides[:2]]
            row = base, len(ring), *steps, math.prod(ring.shape[2:])
            reads += [(*row, calls) for calls in self.bundle.states[key].inputs]
        turns = max((len(ring) for ring in self._rings.values()), default=1)
        oldest = max((max(state.inputs) for state in self.bundle.states.values()), default=0)
        return Program(
            *(memory, operations, parameters),
            reads=np.array(reads, np.int64).reshape(-1, interpreter.CALLS + 1),
            known=np.zeros(self._streams, np.int64),
            cursors=np.array([0, turns, oldest, 0], np.int64),
        )

    def _bind(self) -> list[onnxruntime.IOBinding]:
        """Bind every position of the rings."""
        turns = range(self._program.cursors[interpreter.TURNS])
        return [self._bind_turn(turn) for turn in turns]

    def _bind_turn(self, turn: int) -> onnxruntime.IOBinding:
        binding = self._session.io_binding()
        binding.bind_cpu_input("mixture", self.mixture)
        outputs = {"sources": self.sources}
        for key, ring in self._rings.items():
            for calls, name in self.bundle.states[key].inputs.items():
                binding.bind_cpu_input(name, ring[(turn - calls) % len(ring)])
            outputs[f"next_{key}"] = ring[turn % len(ring)]
        for key, array in outputs.items():
            binding.bind_output(key, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding

    def _check(self, name: object) -> list[tuple[Float32, Float32]]:
        """First calls: they warm the graph up and show whether it gives what it promises.

        Returns
        -------
        list of (Float32, Float32)
            Mixture and sources of each.
        """
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
                    raise BundleError(f"{name}: the graph gives NaN or Inf for ordinary input")
                seen.append((self.mixture.copy(), self.sources.copy()))
        except RuntimeError:
            if not watched.terminate:
                raise
            raise BundleError(
                f"{name}: three calls of the graph take longer than {MAX_START_S:.0f} s"
            ) from None
        finally:
            clock.cancel()
        return seen

    def _lay(self, laid: Path, seen: list[tuple[Float32, Float32]]) -> bool:
        """Go over to a tape of the simplified graph if it can be laid out and gives the same."""
        states = self.bundle.states
        inputs = {name: (k, n) for k, state in states.items() for n, name in state.inputs.items()}
        try:
            copies = {key: len(ring) for key, ring in self._rings.items()}
            tape = Tape(onnx.load_model(laid), copies, inputs)
            if not len(tape.operations):
                return False
            mixture, sources = tape.view("mixture"), tape.view("sources")
            for turn, (heard, told) in enumerate(seen):
                mixture[:] = heard
                tape.run(turn)
                if not np.max(np.abs(sources - told)) <= TAPE_ERROR * np.max(np.abs(told)):
                    return False
        except Exception:  # hostile graphs find more kinds than are known; ONNX Runtime runs them
            return False
        self.mixture, self.sources = mixture, sources
        self._rings = {key: tape.view(f"next_{key}") for key in self._rings}
        self._program = self._with_states(tape.memory, tape.operations, tape.parameters)
        del self._session, self._bindings
        return True

    def __call__(self) -> None:
        """Separate the chunk in ``mixture`` into ``sources`` and advance the state."""
        if self.program is not None:
            interpreter.step(self.program)
            return
        cursors = self._program.cursors
        if not cursors[interpreter.SETTLED]:
            interpreter.forget(self._program)
        self._session.run_with_iobinding(self._bindings[cursors[interpreter.TURN]])
        cursors[interpreter.TURN] = (cursors[interpreter.TURN] + 1) % cursors[interpreter.TURNS]

    @property
    def program(self) -> Program | None:
        """What a kernel may run in place of a call; None where it takes ONNX Runtime."""
        return self._program if len(self._program.operations) else None

    def reset(self, stream: int | None = None) -> None:
        """State := zeros, of one stream or of all."""
        self._program.known[slice(None) if stream is None else stream] = 0
        self._program.cursors[interpreter.SETTLED] = 0


@contextmanager
def _folder() -> Iterator[Path | None]:
    """Give a folder for as long as it is needed, if one can be made."""
    with ExitStack() as stack:
        folder = None
        with suppress(OSError):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="rtsep-")))
        yield folder


def _reason(error: Exception) -> str:
    """Return the first line of what ONNX Runtime says, without places in its program.

    It quotes names from the graph, which may hold what a terminal would obey.
    """
    line = next(iter(str(error).splitlines()), "")
    line = re.sub(r"\S*onnxruntime_src\S*:\d+ (\S.*?\) )?", "", line)
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", line)
    return "".join(c if c.isprintable() else "?" for c in line)[:300] or type(error).__name__
