"""A voice that a model is to keep: made from a recording of the speaker, and its file, ``.voice``.

A bundle may contain a second graph, its enroller, in base64: it maps the frames of a recording,
(1, frames, channels, *frame_shape), to the values of one of the bundle's controls, (1, values).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from rtsep.controls import PREFIX
from rtsep.errors import BundleError, ControlError, LearnedError
from rtsep.files.atomic import replacing
from rtsep.learned.frames import spectra
from rtsep.runtime.bundle import Bundle, check_cost, check_weights
from rtsep.runtime.ort_step import CPU
from rtsep.spec import Float32

FORMAT = "rtsep.voice.1"
MAX_BYTES = 1 << 18
"""Larger files are rejected before reading."""
LEAST_S = 2.0
"""Shortest recording in seconds."""
QUIETEST = 1e-4
"""RMS below which a recording is silence."""


@dataclass(frozen=True)
class Voice:
    """A voice that a model keeps.

    Attributes
    ----------
    model
        Name of the model.
    control, values
        The control that is set, and its values.
    made_by
        Digest of the graph that made the values; those of another one mean something else.
    """

    model: str
    control: str
    values: tuple[float, ...]
    made_by: str

    def applied(self, bundle: Bundle) -> Bundle:
        """Return the bundle with the voice as the initial value of its control.

        Raises
        ------
        LearnedError
            The bundle is another model, or another version of it.
        """
        name = bundle.metadata["name"]
        if self.made_by != _digest(bundle):
            other = "another version" if name == self.model else f"the model {self.model!r}"
            raise LearnedError(
                f"the voice was made for {other}, not for this {name!r}: make it again with "
                f"`rtsep enroll --model`"
            )
        try:
            return bundle.controlled({self.control: self.values})
        except ControlError as error:
            raise LearnedError(f"the voice does not fit {name!r}: {error}") from None


def enroll(
    bundle: Bundle, blocks: Iterable[Float32], channels: int, rate_hz: int, samples: int
) -> Voice:
    """Make a voice from a recording of the speaker alone.

    Parameters
    ----------
    bundle
        A model with an enroller.
    blocks
        (n, channels) each, at most `rtsep.runtime.pipeline.BLOCK` samples.
    channels, rate_hz, samples
        Of the recording.

    Raises
    ------
    LearnedError
        The recording is too short or silent, or the model keeps no voice.
    BundleError
        The enroller can't be run.
    """
    name = bundle.metadata["name"]
    if "enroller" not in bundle.metadata:
        raise LearnedError(f"{name!r} can't keep a voice: choose a model that can with --model")
    if samples < LEAST_S * rate_hz:
        raise LearnedError(
            f"a recording of {samples / rate_hz:.1f} s is too short: at least {LEAST_S:g} s are "
            "needed, and 10 are better"
        )
    frames = spectra(blocks, bundle.spec, channels, rate_hz)
    energy = np.square(frames).sum(axis=(2, 3, 4)).mean(axis=1)
    loudest = int(np.argmax(energy))
    # Half the bins, and a window that has half the energy of a rectangle.
    if energy[loudest] < (QUIETEST * bundle.spec.window_length / 2) ** 2:
        raise LearnedError("the recording is silent: is it the right file or microphone?")
    heard = frames[loudest : loudest + 1]
    control, values = _run(bundle, heard)
    return Voice(name, control, values, _digest(bundle))


def _digest(bundle: Bundle) -> str:
    return hashlib.sha256(bundle.metadata.get("enroller", "").encode()).hexdigest()[:16]


def _run(bundle: Bundle, frames: Float32) -> tuple[str, tuple[float, ...]]:
    try:
        graph = base64.b64decode(bundle.metadata["enroller"], validate=True)
        model = onnx.load_model_from_string(graph)
        check_weights(model)
        sizes = model.graph.input[0].type.tensor_type.shape.dim
        sizes[1].dim_value = frames.shape[1]
        check_cost(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.use_env_allocators", "1")  # they have a limit
        session = onnxruntime.InferenceSession(graph, options, providers=[CPU])
        (control,) = (output.name for output in session.get_outputs())
        (values,) = session.run(None, {"frames": frames})
        made = tuple(float(x) for x in values[0])
        bundle.controlled({control.removeprefix(PREFIX): made})
    except Exception as error:  # ONNX Runtime and protobuf raise several unrelated types
        raise BundleError(
            f"the enroller of {bundle.metadata['name']!r} can't be run: {error}"
        ) from None
    return control.removeprefix(PREFIX), made


def write(voice: Voice, path: Path) -> None:
    """Write a voice, atomically."""
    try:
        with replacing(path) as part:
            part.write_text(json.dumps({"format": FORMAT, **asdict(voice)}), encoding="utf-8")
    except OSError as error:
        raise LearnedError(f"{path} can't be written: {error.strerror}") from None


def read(path: Path) -> Voice:
    """Read a voice.

    Raises
    ------
    LearnedError
        The file can't be read or is no voice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LearnedError(f"{path} is too large for a voice of `rtsep enroll`")
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError
        voice = Voice(
            model=str(fields["model"]),
            control=str(fields["control"]),
            values=tuple(float(x) for x in fields["values"]),
            made_by=str(fields["made_by"]),
        )
    except OSError as error:
        raise LearnedError(f"{path} can't be read: {error.strerror}") from None
    except LearnedError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LearnedError(f"{path} is not a voice of `rtsep enroll`") from None
    return voice
