"""The first messages of a stream; the others are those of `rtsep.ui.protocol`.

A stream begins with ``hello``, as a session of `rtsep ui`, with a frame of 10 to 20 ms. It may also
have:

- ``stems``: true for all stems in the replies, (frame, sources, channels), in place of their mix;
- ``stream``: the name of an earlier stream, which goes on here;
- ``next``: number of the first frame that will be sent, 0 for a new stream.

The reply is ``ready``: ``stream``, the secret name with which it can go on elsewhere; ``model``,
``sources``, ``controls``, ``latency_samples`` and ``latency_terms``; ``window``, the number of
frames that may be sent before their replies are read; ``after``, the number of the last frame that
the model remembers, -1 for none. Commands are ``gain``, ``mute``, ``solo``, ``bypass``, and
``reset``, after which the next frame starts a new stream; ``end`` says that the stream won't go on.
``problem`` says what is wrong, also before the server closes the connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtsep.errors import ProtocolError
from rtsep.ui.protocol import Control, Hello, parse_command, parse_hello, parsed

FRAME_S = 0.01, 0.02
"""Shortest and longest frame, in seconds."""
MOST_FRAMES = 1 << 32
"""Numbers of frames are below this."""
_NAME = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True)
class Greeting:
    """The first message of a client.

    Attributes
    ----------
    hello
        Format of the sound, and the model.
    stems
        Whether replies have all stems, in place of their mix.
    stream
        Name of the stream to go on with; None for a new one.
    next
        Number of the first frame that will be sent.
    """

    hello: Hello
    stems: bool = False
    stream: str | None = None
    next: int = 0


@dataclass(frozen=True)
class Reset:
    """Reset the state of the stream."""


@dataclass(frozen=True)
class End:
    """The stream won't go on after its connection."""


def parse_greeting(text: str) -> Greeting:
    """Read the first message.

    Raises
    ------
    ProtocolError
        The message is not a valid hello.
    """
    hello = parse_hello(text)
    message = parsed(text)
    if not FRAME_S[0] <= hello.frame / hello.sample_rate <= FRAME_S[1]:
        raise ProtocolError("a frame must last from 10 to 20 ms")
    stems, stream, number = (message.get(key) for key in ("stems", "stream", "next"))
    if not isinstance(stems, bool | None):
        raise ProtocolError("stems must be true or false")
    if stream is not None and not (isinstance(stream, str) and _NAME.fullmatch(stream)):
        raise ProtocolError("stream must be the name of an earlier stream")
    if number is None:
        number = 0
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MOST_FRAMES:
        raise ProtocolError("next must be the number of a frame")
    return Greeting(hello, bool(stems), stream, number)


def parse_request(text: str) -> Control | Reset | End:
    """Read a message after the first one.

    Raises
    ------
    ProtocolError
        The message is not valid here.
    """
    kind = parsed(text)["type"]
    if kind in ("reset", "end"):
        return Reset() if kind == "reset" else End()
    command = parse_command(text)
    if not isinstance(command, Control):
        raise ProtocolError("there is no such type of message")
    return command
