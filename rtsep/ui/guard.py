"""Access control: only pages of this server and, from other machines, holders of the token.

A page of any web site can send requests to a server on the same machine. The header ``Origin`` of a
WebSocket identifies such a page. The header ``Host`` identifies a site whose name was resolved to
this machine's address ("DNS rebinding").
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rtsep.errors import GuardError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_for(host: str, wanted: str | None) -> str | None:
    """Return the token that protects a server on ``host``.

    Parameters
    ----------
    host
        A name or an address.
    wanted
        ``"auto"`` for a new token, the token itself, or None for none.

    Raises
    ------
    GuardError
        Other machines can reach the host and there is no token, or it is too short.
    """
    if wanted is None:
        if not is_loopback(host):
            raise GuardError(
                f"other machines can reach {host}: add --token auto, which prints a new token, or "
                "leave --host out"
            )
        return None
    if wanted == "auto":
        return secrets.token_urlsafe(24)
    if not _TOKEN.fullmatch(wanted):
        raise GuardError(
            "--token must be auto, or 16 to 128 letters, digits, - and _, to be hard to guess"
        )
    return wanted


@dataclass(frozen=True)
class Guard:
    """Checks the headers of requests.

    Attributes
    ----------
    host
        Address that the server listens on.
    token
        Required token; None if none is required.
    """

    host: str
    token: str | None

    def knows_host(self, header: str | None) -> bool:
        """Return whether the header ``Host`` is a name or address of this server."""
        name = _host_name(header)
        if name is None:
            return False
        if is_loopback(name) or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            own = socket.gethostname().lower()
            return name in (own, f"{own}.local")
        return True  # an address: rebinding needs a name

    def knows_origin(self, origin: str | None, host: str | None) -> bool:
        """Return whether the request comes from a page of this server, by ``Origin``."""
        if origin is None or host is None:
            return False
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest.lower() == host.lower()

    def knows_token(self, given: str | None) -> bool:
        """Return whether the token is correct or not required."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _host_name(header: str | None) -> str | None:
    if not header:
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises if invalid
    except ValueError:
        return None
    if parts.netloc != header or parts.username is not None:
        return None
    return parts.hostname


@dataclass
class Allowance:
    """A rate limit for messages (token bucket).

    Attributes
    ----------
    per_second
        Average rate.
    burst
        Largest number at once.
    """

    per_second: float
    burst: float
    _left: float = field(init=False)
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        """Start with a full bucket."""
        self._left = self.burst
        self._looked = time.monotonic()

    def take(self) -> bool:
        """Count a message; return whether it is within the limit."""
        now = time.monotonic()
        grown = self._left + (now - self._looked) * self.per_second
        self._left = min(self.burst, grown) - 1.0
        self._looked = now
        return self._left >= 0.0
