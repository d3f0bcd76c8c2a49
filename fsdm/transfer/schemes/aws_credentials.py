"""The keys of AWS that the machine has for this user: botocore's chain (environment, files, SSO, roles, instance).

botocore is asked in a thread that may be left to itself, for some of the chain asks servers; what it has said is
believed for a minute: its keys last longer. Invariant: no word of botocore's own is shown, which may have secrets.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fsdm.concurrency.detached import call_detached
from fsdm.model.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation

BELIEVED_S: Final = 60.0
TIMEOUT_S: Final = 60.0
HINT: Final = (
    "give its source access-key-id and secret-access-key-file, or unsigned = true; "
    "or install fsdm[s3], which finds what the AWS tools find"
)


@dataclass(frozen=True, slots=True)
class Keys:
    """A key to sign with, and the token that may belong to it."""

    key_id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


class Chain:
    """The chain of this process, for all threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._credentials: Any = None
        self._known: Keys | None = None
        self._until = 0.0

    def keys(self, stop: Cancellation) -> Keys:
        """Return the keys that hold now.

        Raises:
            TransferError: transient; there are none, or they could not be had.
            StoppedError: `stop` was set meanwhile.
        """
        known = self._known
        if known is not None and self._clock() < self._until:
            return known
        try:
            return call_detached(self._ask, stop, TIMEOUT_S, "fsdm-credentials")
        except ImportError as e:
            raise _none("there is no key to sign with, and no botocore to find one") from e
        except TimeoutError as e:
            raise _none(f"botocore found no key within {TIMEOUT_S:g} s") from e

    def forget(self, keys: Keys) -> None:
        """Ask anew where these are what is known: the server takes them no longer."""
        with self._mutex:
            if self._known == keys:
                self._known = self._credentials = None

    def _ask(self) -> Keys:
        from botocore.session import Session

        with self._mutex:  # one asks, and the others find what it found
            if self._known is not None and self._clock() < self._until:
                return self._known
            try:
                self._credentials = self._credentials or Session().get_credentials()
                found = None if self._credentials is None else self._credentials.get_frozen_credentials()
            except Exception as e:
                raise _none(f"botocore found no key: {type(e).__name__}") from None
            if found is None or not found.access_key:
                raise _none("botocore found no key to sign with")
            self._known = Keys(found.access_key, found.secret_key or "", found.token or "")
            self._until = self._clock() + BELIEVED_S
            return self._known


def _none(what: str) -> TransferError:
    return TransferError(what, transient=True, hint=HINT, cause="settings")
