"""The first message of a stream, and those that follow."""

from __future__ import annotations

import json

import pytest

from rtsep.errors import ProtocolError
from rtsep.serve.protocol import End, Greeting, Reset, parse_greeting, parse_request
from rtsep.ui.protocol import Control
from tests.support.serving import HELLO, greeting

NAME = "0123456789_-abcdefABCD"


def test_a_greeting_is_read() -> None:
    assert parse_greeting(greeting()) == Greeting(HELLO)
    whole = greeting(stems=True, stream=NAME, next=7)
    assert parse_greeting(whole) == Greeting(HELLO, stems=True, stream=NAME, next=7)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"frame": 128}, "10 to 20 ms"),
        ({"frame": 640}, "10 to 20 ms"),
        ({"stems": 1}, "stems"),
        ({"stream": "short"}, "stream"),
        ({"stream": 5}, "stream"),
        ({"stream": NAME + "\n"}, "stream"),
        ({"next": -1}, "next"),
        ({"next": 1 << 32}, "next"),
        ({"next": True}, "next"),
        ({"sample_rate": 16001}, "sample_rate"),
    ],
)
def test_an_invalid_greeting_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        parse_greeting(greeting(**change))


def test_requests_are_read() -> None:
    assert parse_request('{"type": "reset"}') == Reset()
    assert parse_request('{"type":"end"}') == End()
    gain = json.dumps({"type": "gain", "source": "speech", "db": -6})
    assert parse_request(gain) == Control("gain", "speech", -6.0)
    for text in ('{"type": "model", "name": "music"}', '{"type": "record", "on": true}', "x", "[]"):
        with pytest.raises(ProtocolError):
            parse_request(text)
