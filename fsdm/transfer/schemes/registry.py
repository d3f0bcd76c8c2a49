"""The sources by the scheme of their URLs.

http and https are asked by the engine of the transport. fsdm has some other schemes itself; those of installed packages
are found by their entry points in `fsdm.sources`, named as their scheme, each a function that makes an `Opener`. fsspec
has the others, where it is installed.

Invariants: nothing but http and https is asked for that the policy does not allow, nor is anything of a package loaded
before; no package takes the place of what fsdm has itself.
"""

from __future__ import annotations

import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import TransferError
from fsdm.model.source_policy import SCHEMES
from fsdm.transfer.http.engine import about
from fsdm.transfer.schemes.aws_credentials import Chain
from fsdm.transfer.schemes.fsspec_files import FsspecFiles, knows
from fsdm.transfer.schemes.local import LocalFiles
from fsdm.transfer.schemes.opened import OpenerEngine
from fsdm.transfer.schemes.store_engine import StoreEngine
from fsdm.transfer.schemes.stores import STORES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.source_policy import Policy
    from fsdm.transfer.fetcher import HttpEngine
    from fsdm.transfer.http.engine import Engine
    from fsdm.transfer.http.exchange import Begin
    from fsdm.transfer.http.source_settings import Sources
    from fsdm.transfer.schemes.opened import Opener

GROUP: Final = "fsdm.sources"


class Schemes:
    """Asks for URLs of any scheme that there is a source for; used by all threads.

    `libcurl` gives the engine for a kind of object store, when the first one is asked.
    """

    def __init__(
        self, http: HttpEngine, libcurl: Callable[[], Engine], policy: Policy, sources: Sources, data_dir: str | None
    ) -> None:
        self._http = http
        self._libcurl = libcurl
        self._policy = policy
        self._sources = sources
        self._chain = Chain()
        self._local = LocalFiles(policy, data_dir)
        self._mutex = threading.Lock()
        self._known: dict[str, HttpEngine] = {}

    def get(self, url: str, headers: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """See `Engine.get`."""
        scheme = url.partition(":")[0].lower()
        if scheme in SCHEMES:
            self._http.get(url, headers, stop, begin)
            return
        with about(url):
            if scheme != "file":  # whose directories are looked at when it is opened
                self._policy.check_other(url)
            engine = self._find(scheme)
        engine.get(url, headers, stop, begin)

    def _find(self, scheme: str) -> HttpEngine:
        with self._mutex:
            if scheme not in self._known:
                self._known[scheme] = self._make(scheme)
            return self._known[scheme]

    def _make(self, scheme: str) -> HttpEngine:
        if scheme in STORES:
            return StoreEngine(STORES[scheme], self._libcurl(), self._sources, self._chain)
        if scheme == "file":
            return OpenerEngine(self._local, self._sources)
        self._policy.check_unseen_source()
        return OpenerEngine(_of_package(scheme), self._sources)


def _of_package(scheme: str) -> Opener:
    """Make the source that an installed package has; raises TransferError where there is none, or it cannot be had."""
    found = next(iter(entry_points(group=GROUP, name=scheme)), None)
    if found is None and knows(scheme):
        return FsspecFiles()
    if found is None:
        hint = "install what does, or fsdm[fsspec]; see fsdm docs sources"
        raise TransferError(f"nothing installed here fetches {scheme}://", hint=hint)
    try:
        opener: Opener = found.load()()
    except Exception as e:
        what = f"{found.value}, which is to fetch {scheme}://, cannot be made: {type(e).__name__}"
        hint = f"mend its package: python -c 'import {found.module}' may tell more"
        raise TransferError(what, transient=True, hint=hint, cause="settings") from e
    return opener
