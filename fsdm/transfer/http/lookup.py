"""Names → addresses. getaddrinfo(3) cannot be cut, and may take half a minute: so a thread asks that may be left alone.

It ends with the resolver's own timeouts; until then there is one for each look-up that was given up meanwhile. (libcurl
waits for its own resolver's thread when a handle is closed.)
"""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdm.concurrency.cancellation import Cancellation


def look_up(host: str, port: int, stop: Cancellation, timeout_s: float) -> list[str]:
    """The addresses of a host, for TCP, the preferred first.

    Raises:
        StoppedError: `stop` was set meanwhile.
        TimeoutError: there was no answer in time.
        OSError, UnicodeError: there is none; the name is no name.
    """
    if is_address(host):
        return _ask(host, port)
    answers: list[list[str] | Exception] = []
    answered = threading.Event()

    def ask() -> None:
        try:
            answers.append(_ask(host, port))
        except (OSError, UnicodeError) as e:
            answers.append(e)
        finally:
            answered.set()

    threading.Thread(target=ask, name="fsdm-lookup", daemon=True).start()
    stop.wait(timeout_s, answered)
    if not answers:
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _ask(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_address(host: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
