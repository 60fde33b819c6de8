"""A voice that a model is to keep is made from a recording of the speaker.

A bundle may contain a second graph, its enroller, in base64: it maps the frames of a recording,
(1, frames, channels, *frame_shape), to the values of one of the bundle's controls, (1, values).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime

from rtsep.controls import PREFIX
from rtsep.errors import BundleError, LearnedError
from rtsep.learned.frames import spectra
from rtsep.learned.kept_voice import Voice, maker
from rtsep.runtime.bundle import Bundle, check_cost, check_weights
from rtsep.runtime.ort_step import CPU
from rtsep.spec import Float32

LEAST_S = 2.0
"""Shortest recording in seconds."""
QUIETEST = 1e-4
"""RMS below which a recording is silence."""


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
    energy = np.square(frames).reshape(*frames.shape[:2], -1).sum(axis=2).mean(axis=1)
    loudest = int(np.argmax(energy))
    # Of spectra half the bins, and a window that has half the energy of a rectangle.
    length = bundle.spec.window_length
    usual = length if bundle.spec.frontend == "waveform" else (length / 2) ** 2
    if energy[loudest] < QUIETEST**2 * usual:
        raise LearnedError("the recording is silent: is it the right file or microphone?")
    heard = frames[loudest : loudest + 1]
    control, values = _run(bundle, heard)
    return Voice(name, control, values, maker(bundle))


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
