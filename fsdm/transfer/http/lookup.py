"""Names → addresses. getaddrinfo(3) cannot be cut, and may take half a minute: so a thread asks that nobody has to wait
for. It ends with the resolver's own timeouts; until then there is one for each connection that was given up meanwhile.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsdm.concurrency.cancellation import Cancellation

Addresses = list[tuple[Any, Any, int, str, Any]]  # family, kind, protocol, name, address: see socket.getaddrinfo


def look_up(host: str, port: int, stop: Cancellation | None, timeout_s: float | None) -> Addresses:
    """The addresses of a host, for TCP.

    Raises:
        StoppedError: `stop` was set meanwhile.
        TimeoutError: there was no answer in time.
        OSError, UnicodeError: there is none; the name is no name.
    """
    if stop is None or timeout_s is None or _is_address(host):
        return _ask(host, port)
    answers: list[Addresses | Exception] = []
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
        raise TimeoutError(f"no address of {host} within {timeout_s:g} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _ask(host: str, port: int) -> Addresses:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
