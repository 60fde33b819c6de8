"""A virtual microphone in PipeWire: the portable graph as the ``onnx`` node of a filter chain.

The node of PipeWire 1.6 runs the graph once per cycle only if a cycle is exactly one block, so the
configuration asks for cycles of that length. It does not clear the first state: the graph must be
sealed, see `rtsep.portable.graph.build`.
"""

from __future__ import annotations

import json
from pathlib import Path

from rtsep.files.atomic import replacing
from rtsep.portable.graph import Portable
from rtsep.portable.triton import plain_name

RATE_HZ = 48_000
"""Rate of most PipeWire graphs."""

_CONFIG = """\
# {name}: a microphone with one source of another microphone, by PipeWire 1.6 or later.
# Copy this file to ~/.config/pipewire/pipewire.conf.d/ and restart PipeWire:
#   systemctl --user restart pipewire
# Sources: {names}. Change the name in "output-tensors" and "outputs" to hear another one.
context.modules = [
    {{ name = libpipewire-module-filter-chain
        flags = [ nofail ]
        args = {{
            node.description = {title}
            media.name = {title}
            audio.rate = {rate}
            audio.channels = 1
            audio.position = [ MONO ]
            # One cycle of the graph is one block of the model: {block} samples at {rate} Hz.
            node.force-rate = {cycle_rate}
            node.force-quantum = {quantum}
            filter.graph = {{
                nodes = [
                    {{ type = onnx
                        name = rtsep
                        label = {{
                            filename = {path}
                            blocksize = {block}
                            input-tensors = {{
                                "mixture" = {{
                                    dimensions = [ 1, 1, {block} ]
                                    data = "port:mixture"
                                }}
                                "state" = {{
                                    dimensions = [ 1, {state} ]
                                    data = "tensor:next_state"
                                }}
                            }}
                            output-tensors = {{
                                {source} = {{
                                    dimensions = [ 1, 1, {block} ]
                                    data = {port}
                                }}
                                "next_state" = {{ dimensions = [ 1, {state} ] }}
                            }}
                        }}
                    }}
                ]
                inputs = [ "rtsep:mixture" ]
                outputs = [ {end} ]
            }}
            capture.props = {{
                node.name = "capture.{name}"
                node.passive = true
            }}
            playback.props = {{
                node.name = "{name}"
                media.class = Audio/Source
            }}
        }}
    }}
]
"""


def cycle(rate_hz: int, block: int) -> tuple[int, int]:
    """Return rate and samples of a cycle that is one block: at `RATE_HZ` if that is possible."""
    if block * RATE_HZ % rate_hz:
        return rate_hz, block
    return RATE_HZ, block * RATE_HZ // rate_hz


def config(portable: Portable, name: str, path: Path) -> str:
    """Return the text of the configuration.

    Parameters
    ----------
    portable
        Sealed graph of one channel with separate outputs.
    name
        Name of the node.
    path
        Absolute path of the graph.
    """
    rate, source = portable.spec.sample_rate, portable.outputs[0]
    cycle_rate, quantum = cycle(rate, portable.block)
    return _CONFIG.format(
        name=name,
        title=json.dumps(f"rtsep {source}"),
        names=", ".join(portable.outputs),
        rate=rate,
        block=portable.block,
        cycle_rate=cycle_rate,
        quantum=quantum,
        path=json.dumps(str(path)),
        state=portable.state_size,
        source=json.dumps(source),
        port=json.dumps(f"port:{source}"),
        end=json.dumps(f"rtsep:{source}"),
    )


def write(portable: Portable, name: str, folder: Path) -> Path:
    """Write ``NAME.onnx`` and ``NAME.conf`` to a folder; return the path of the configuration.

    Raises
    ------
    OSError
        The files can't be written.
    """
    own = plain_name(name)
    graph, text = folder / f"{own}.onnx", folder / f"{own}.conf"
    with replacing(graph) as part:
        part.write_bytes(portable.model.SerializeToString())
    with replacing(text) as part:
        part.write_text(config(portable, own, graph.absolute()), encoding="utf-8")
    return text
