"""A model repository for the Triton Inference Server: each sequence of requests is a stream."""

from __future__ import annotations

import re
from pathlib import Path

from rtsep.files.atomic import replacing
from rtsep.portable.graph import Portable

MAX_BATCH, MAX_STREAMS = 16, 1024
IDLE_S = 10
"""A stream without requests for so long is forgotten."""

_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: "mixture" data_type: TYPE_FP32 dims: [ {channels}, {block} ] }} ]
output [ {{ name: "sources" data_type: TYPE_FP32 dims: [ {sources}, {channels}, {block} ] }} ]
sequence_batching {{
  max_sequence_idle_microseconds: {idle}
  oldest {{ max_candidate_sequences: {streams} }}
  state [
    {{
      input_name: "state"
      output_name: "next_state"
      data_type: TYPE_FP32
      dims: [ {state} ]
      initial_state: {{ name: "zeros" data_type: TYPE_FP32 dims: [ {state} ] zero_data: true }}
    }}
  ]
}}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "sample_rate" value: {{ string_value: "{rate}" }} }}
parameters {{ key: "latency_samples" value: {{ string_value: "{latency}" }} }}
parameters {{ key: "sources" value: {{ string_value: "{names}" }} }}
"""


def config(portable: Portable, name: str) -> str:
    """Return the text of ``config.pbtxt``.

    Parameters
    ----------
    portable
        Graph with a free batch size.
    name
        Name of the model, that of its folder.
    """
    return _CONFIG.format(
        name=name,
        batch=MAX_BATCH,
        channels=portable.channels,
        block=portable.block,
        sources=len(portable.spec.sources),
        idle=IDLE_S * 1_000_000,
        streams=MAX_STREAMS,
        state=portable.state_size,
        rate=portable.spec.sample_rate,
        latency=portable.latency_samples,
        names=",".join(portable.spec.sources),
    )


def plain_name(name: str) -> str:
    """Return a name for folders and nodes: letters, digits, ``-`` and ``_``."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "rtsep"


def write(portable: Portable, name: str, folder: Path) -> Path:
    """Write ``NAME/1/model.onnx`` and ``NAME/config.pbtxt`` to a repository; return their folder.

    Raises
    ------
    OSError
        The files can't be written.
    """
    own = folder / plain_name(name)
    with replacing(own / "1/model.onnx") as part:
        part.write_bytes(portable.model.SerializeToString())
    with replacing(own / "config.pbtxt") as part:
        part.write_text(config(portable, plain_name(name)), encoding="utf-8")
    return own
