"""PUT of a small document to a URL of http(s), with the settings that its source has. By requests.

Invariant: no redirect is followed, so neither the document nor a credential goes to another server.
"""

from __future__ import annotations

import http.client
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import requests

from fsdm.concurrency.detached import call_detached
from fsdm.model.errors import TransferError, cause_of_status
from fsdm.transfer.http.engine import about, read
from fsdm.transfer.http.head import TRANSIENT_STATUS
from fsdm.transfer.requests_engine import plain_session, way_of
from fsdm.transfer.requests_errors import in_words

if TYPE_CHECKING:
    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.http.source_settings import Sources

TIMEOUTS_S: Final = (10.0, 30.0)
TIMEOUT_S: Final = 60.0


def put(url: str, data: bytes, sources: Sources, stop: Cancellation) -> None:
    """Put JSON at a URL.

    Raises:
        TransferError: it was not taken.
        StoppedError: `stop` was set.
    """
    with about(url):
        target = read(url)
        settings = sources.of(target)
        headers: dict[str, Any] = {"Content-Type": "application/json", **settings.headers}
        if target.credentials:
            headers["Authorization"] = f"Basic {target.credentials}"
        how = {"headers": headers, "allow_redirects": False, "timeout": TIMEOUTS_S, **way_of(target, settings)}
        try:
            status = call_detached(partial(_put, target.url, data, how), stop, TIMEOUT_S, "fsdm-put")
        except (requests.RequestException, TimeoutError) as e:
            stop.check()
            what, cause = in_words(e, *TIMEOUTS_S)
            raise TransferError(what, transient=cause != "tls", cause=cause) from None
        if not 200 <= status < 300:
            what = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
            is_transient = status in TRANSIENT_STATUS or status >= 500
            hint = "see whether what serves it takes PUT, and from whom (fsdm docs sources)"
            raise TransferError(what, transient=is_transient, hint=hint, cause=cause_of_status(status))


def _put(url: str, data: bytes, how: dict[str, Any]) -> int:
    with plain_session() as session, session.put(url, data=data, stream=True, **how) as response:
        return response.status_code
