"""Who may talk to the server: pages that it served itself, and, beyond this machine, token holders.

A page of any site can send requests to a server on the same machine. Its browser says so in the
``Origin`` of a WebSocket, and a site that gives its own name this machine's address ("DNS
rebinding") is told by the ``Host``.
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
    """Tell whether ``host`` can be reached from this machine only."""
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
        ``"auto"`` for a new one, or the token itself; None for none.

    Raises
    ------
    GuardError
        Other machines can reach the host and there is no token, or it could be guessed.
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
            "--token must be auto, or 16 to 128 letters, digits, - and _: a shorter one is guessed"
        )
    return wanted


@dataclass(frozen=True)
class Guard:
    """What a request must bring.

    Attributes
    ----------
    host
        Where the server listens.
    token
        None if none is asked for.
    """

    host: str
    token: str | None

    def knows_host(self, header: str | None) -> bool:
        """Tell whether a ``Host`` is a name of this server: no name that somebody else gave it."""
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
        return True  # rebinding needs a name

    def knows_origin(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a page of this server asks, as its browser says."""
        if origin is None or host is None:
            return False
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest.lower() == host.lower()

    def knows_token(self, given: str | None) -> bool:
        """Tell whether the token is the right one, or none is needed."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _host_name(header: str | None) -> str | None:
    if not header:
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises for nonsense
    except ValueError:
        return None
    if parts.netloc != header or parts.username is not None:
        return None
    return parts.hostname


@dataclass
class Allowance:
    """So many messages per second, and so many at once after a pause.

    Attributes
    ----------
    per_second
        In the long run.
    burst
        At once.
    """

    per_second: float
    burst: float
    _left: float = field(init=False)
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        """Start with everything allowed."""
        self._left = self.burst
        self._looked = time.monotonic()

    def take(self) -> bool:
        """Count a message; tell whether it is within the limit."""
        now = time.monotonic()
        grown = self._left + (now - self._looked) * self.per_second
        self._left = min(self.burst, grown) - 1.0
        self._looked = now
        return self._left >= 0.0
