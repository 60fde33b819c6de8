"""A bundle in ONNX Runtime, one call per chunk over fixed buffers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime

from rtsep.bundle import Bundle, BundleError
from rtsep.spec import Float32

onnxruntime.set_default_logger_severity(4)  # what goes wrong is an exception, said once


class Separator:
    """The model's :class:`rtsep.spec.Step`: fill ``mixture``, call, read ``sources``.

    What calls hand to later ones lies in rings, and every position of the rings is bound
    beforehand, so nothing is copied or allocated. While the graph runs, the interpreter lock is
    free.

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
        ONNX Runtime refuses the graph, a provider is not there, or silence or noise in does not
        give finite frames out.
    """

    def __init__(
        self,
        bundle: Bundle,
        streams: int = 1,
        threads: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.bundle = bundle
        spec = bundle.spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_free_dimension_override_by_name("streams", streams)
        name = bundle.path or bundle.metadata["name"]
        if providers[0] not in onnxruntime.get_available_providers():
            raise BundleError(f"{providers[0]} is not available here; leave providers at the CPU")
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.graph,
                options,
                providers=list(providers),
                enable_fallback=0,  # it prints
            )
        except Exception as error:  # ONNX Runtime raises its own types, bare RuntimeError too
            raise BundleError(f"{name}: ONNX Runtime refuses the graph: {_reason(error)}") from None
        if self._session.get_providers()[0] != providers[0]:
            raise BundleError(f"{providers[0]} is not available here; leave providers at the CPU")
        self.mixture: Float32 = np.zeros(
            (streams, spec.chunk, spec.channels, *spec.frame_shape), np.float32
        )
        self.sources: Float32 = np.zeros(
            (streams, spec.chunk, len(spec.sources), spec.channels, *spec.frame_shape), np.float32
        )
        # Powers of two, so that all rings come round together; longer than the oldest call that is
        # still read, so that no call writes where it reads.
        self._rings: dict[str, Float32] = {
            key: np.zeros((1 << max(state.inputs).bit_length(), streams, *state.shape), np.float32)
            for key, state in bundle.states.items()
        }
        self._turn = 0
        self._oldest = max((max(state.inputs) for state in bundle.states.values()), default=0)
        self._known = 0  # calls since the reset
        try:
            turns = max((len(ring) for ring in self._rings.values()), default=1)
            self._bindings = [self._bind(turn) for turn in range(turns)]
            self._check(name)
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(f"{name}: the graph does not run: {_reason(error)}") from None

    def _bind(self, turn: int) -> onnxruntime.IOBinding:
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

    def _check(self, name: object) -> None:
        """First calls: they warm the graph up and show whether it gives what it promises."""
        noise = np.random.default_rng(0).standard_normal(self.mixture.shape).astype(np.float32)
        for frame in (np.zeros_like(noise), noise, noise):
            self.mixture[:] = frame
            self.sources[:] = np.nan
            self()
            if not np.all(np.isfinite(self.sources)):
                raise BundleError(f"{name}: the graph gives NaN or Inf for ordinary input")
        self.mixture[:] = 0.0
        self.reset()

    def __call__(self) -> None:
        """Separate the chunk in ``mixture`` into ``sources`` and advance the state."""
        if self._known < self._oldest:
            self._forget()
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = (self._turn + 1) % len(self._bindings)

    def reset(self) -> None:
        """State := zeros."""
        self._known = 0

    def _forget(self) -> None:
        """Clear what the next call would read from before the reset.

        No more than the call reads anyway: to clear all at once, tens of megabytes for some models,
        would be a missed deadline.
        """
        for key, ring in self._rings.items():
            for calls in self.bundle.states[key].inputs:
                if calls > self._known:
                    ring[(self._turn - calls) % len(ring)] = 0.0
        self._known += 1


def _reason(error: Exception) -> str:
    """Return the first line of what ONNX Runtime says."""
    return next(iter(str(error).splitlines()), type(error).__name__)
