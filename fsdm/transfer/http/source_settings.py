"""The settings of sources, found for each request: by its URL, and by what files and environment say at that time.

Invariant: what a source has goes to no URL that does not match it. A path that climbs (`..`, also quoted, or behind a
backslash) may lead anywhere on its server: only a source of the whole origin matches it.
"""

from __future__ import annotations

import os
import stat
import threading
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from fsdm.concurrency.rate_limit import Rate
from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import HostError, InvalidInputError, TransferError
from fsdm.model.source_policy import climbs
from fsdm.model.sources import join_headers
from fsdm.store.filesystem import read_regular
from fsdm.transfer.http.route import NONE, Access, Settings, read_proxy
from fsdm.transfer.http.target import locate, origin_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.sources import Source
    from fsdm.transfer.http.target import Located

SECRET_MAX_BYTES: Final = 1 << 16
STOP_S: Final = 0.05  # how soon a waiting request sees that it is stopped
OTHERS_MAY: Final = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


class Bounds:
    """The bounds of one source over all threads: requests at once (None: any number), a pace of them, and a rate."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.connections: int | None = None
        self.rate = Rate(None)
        self.pace = Rate(None)  # of requests
        self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def request(self, stop: Cancellation) -> Iterator[None]:
        """Wait until one more may begin and run, and run it in the block; raises StoppedError."""
        if not self._begins():
            with out_of_turn():
                while not self._begins():
                    with self._changed:
                        self._changed.wait(STOP_S)
                    stop.check()
        try:
            self.pace.took(1, stop.wait)
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    def _begins(self) -> bool:
        with self._changed:
            may_begin = self.connections is None or self._running < self.connections
            self._running += may_begin
            return may_begin


UNBOUND: Final = Bounds()


class Sources:
    """The sources of this process, for all threads. Paths are relative to `directory`.

    Raises:
        InvalidInputError: two match the same, or what one names cannot be used; the source is named, no value is.
    """

    def __init__(self, sources: Iterable[Source] = (), directory: str = ".") -> None:
        self._directory = os.path.abspath(directory)
        self._entries: dict[str, list[_Entry]] = {}  # by origin, the longest prefix first
        self.change(sources)

    def change(self, sources: Iterable[Source]) -> None:
        """Keep to these from the next request on; an error, as at the start, changes nothing."""
        known = {entry.bounds.name: entry.bounds for entries in self._entries.values() for entry in entries}
        found: dict[str, _Entry] = {}
        for number, source in enumerate(sources, 1):
            name = f"source {number} ({source.match})"
            try:
                place = locate(source.match)
                url = place.origin + (place.path or "/")
                if url in found:
                    raise ValueError(f"match: {found[url].name} matches the same")
                bounds = known.get(url) or Bounds(url)
                found[url] = entry = _Entry(name, source, self._directory, place, bounds)
                entry.settings()
            except ValueError as e:
                raise InvalidInputError(f"{name}: {e}", hint="see fsdm docs sources") from None
        by_origin: dict[str, list[_Entry]] = {}
        for entry in sorted(found.values(), key=lambda entry: len(entry.prefix), reverse=True):
            entry.bounds.connections = entry.source.connections
            entry.bounds.rate.change(entry.source.bytes_per_s)
            entry.bounds.pace.change(entry.source.requests_per_s)
            by_origin.setdefault(entry.origin, []).append(entry)
        self._entries = by_origin

    def of(self, target: Located) -> Settings:
        """Find the settings for a request; raises TransferError where they cannot be had at this time."""
        entry = self._find(target)
        try:
            return entry.settings() if entry is not None else NONE
        except ValueError as e:
            what, hint = f"{entry and entry.name}: {e}", "mend that: it is looked at with each request"
            raise TransferError(what, transient=True, hint=hint, cause="settings") from None

    def bounds(self, target: Located) -> Bounds:
        """Return the bounds that a request is under."""
        entry = self._find(target)
        return UNBOUND if entry is None else entry.bounds

    def bounds_of(self, url: str) -> Bounds:
        """Return the bounds that a URL is under; one that cannot be read is under none."""
        try:
            return self.bounds(locate(url)) if self._entries else UNBOUND
        except ValueError:  # its request will be refused
            return UNBOUND

    def group(self, url: str) -> tuple[str, int | None]:
        """Return the name of what a URL is bounded together with, and the bound on connections, if it is a source's."""
        bounds = self.bounds_of(url)
        return (origin_of(url) if bounds.connections is None else bounds.name), bounds.connections

    def _find(self, target: Located) -> _Entry | None:
        entries = self._entries.get(target.origin, ())
        scheme = f"{target.origin.partition('://')[0]}://"
        if scheme not in {"http://", "https://", target.origin}:
            entries = [*entries, *self._entries.get(scheme, ())]  # those for any host of it come last
        if not entries:
            return None
        segments, climbs = _read_path(target)
        return next((one for one in entries if one.matches(segments) and not (climbs and any(one.prefix))), None)


class _Entry:
    """One source; its errors are ValueErrors that begin with a key, and show no value."""

    def __init__(self, name: str, source: Source, directory: str, place: Located, bounds: Bounds) -> None:
        self.name = name
        self.source = source
        self.origin = place.origin
        self.prefix, climbs = _read_path(place)
        self.bounds = bounds
        self._directory = directory
        self._proxy = None if source.proxy is None else source.proxy.get_secret_value()
        if climbs:
            raise ValueError("match: a path with . or .. may lead anywhere")
        try:
            read_proxy(self._proxy or "http://none")
        except HostError:
            raise ValueError("proxy: it is no URL of a proxy (http, https, socks4, socks5, socks5h)") from None

    def matches(self, segments: tuple[bytes, ...]) -> bool:
        """Tell whether a path begins with the prefix; behind one that ends with a slash there is something."""
        length = len(self.prefix) - (not self.prefix[-1])
        return len(segments) >= len(self.prefix) and segments[:length] == self.prefix[:length]

    def settings(self) -> Settings:
        """Read what is read each time."""
        source = self.source
        ca = source.ca and self._usable("ca", source.ca)
        cert = source.client_cert and self._usable("client-cert", source.client_cert, is_secret=not source.client_key)
        key = source.client_key and self._usable("client-key", source.client_key, is_secret=True)
        headers, access = join_headers([*self._fields()]), self._access()
        if "Authorization" in headers and (access.key_id or access.sas or access.is_unsigned):
            raise ValueError("headers: Authorization does not go with access-key-id, sas-file or unsigned")
        return Settings(headers, self._proxy, ca or "", cert or "", key or "", access)

    def _access(self) -> Access:
        source = self.source
        secret = source.secret_access_key.get_secret_value() if source.secret_access_key is not None else ""
        return Access(
            endpoint=(source.endpoint or "").rstrip("/"),
            region=source.region or "",
            path_style=source.path_style,
            is_unsigned=source.unsigned,
            key_id=source.access_key_id or "",
            secret=secret or self._read_line("secret-access-key-file", source.secret_access_key_file),
            token=self._read_line("session-token-file", source.session_token_file),
            sas=self._read_line("sas-file", source.sas_file).removeprefix("?"),
        )

    def _fields(self) -> Iterator[tuple[str, str, str]]:
        source = self.source
        for name, secret in source.headers.items():
            yield "headers", name, secret.get_secret_value()
        lines = self._read("headers-file", source.headers_file).decode("latin-1").split("\n")
        for number, line in enumerate(lines, 1):
            name, colon, value = line.partition(":")
            if line.strip() and not line.startswith("#"):
                if not colon:
                    raise ValueError(f"headers-file: line {number} is no line of Name: value")
                yield "headers-file", name, value.strip()
        for name, variable in source.headers_env.items():
            if variable not in os.environ:
                raise ValueError(f"headers-env: the variable for {name} is not set")
            yield "headers-env", name, os.environ[variable].strip()
        if source.user is not None:
            password = self._read_bytes_of_line("password-file", source.password_file)
            yield "user", "Authorization", f"Basic {b64encode(source.user.encode() + b':' + password).decode()}"

    def _usable(self, key: str, path: str, *, is_secret: bool = False) -> str:
        """Return where a file is, of which nobody else may read the secrets."""
        path = os.path.join(self._directory, path)
        path = os.path.realpath(path) if os.path.islink(path) else path  # which costs more than to read it
        try:
            found = os.stat(path)
        except OSError as e:
            raise ValueError(f"{key}: {path}: {e.strerror}") from None
        if is_secret and (found.st_mode & OTHERS_MAY or found.st_uid not in {0, os.geteuid()}):
            mend = f"chown {os.geteuid()} {path} && chmod 600 {path}"
            raise ValueError(f"{key}: {path} may be read by others than the user that reconciles: {mend}")
        return path

    def _read_line(self, key: str, path: str | None) -> str:
        line = self._read_bytes_of_line(key, path)
        if path is not None and (not line.isascii() or not line.decode("latin-1").isprintable() or not line.strip()):
            raise ValueError(f"{key}: it is empty, or has more than printable ASCII in it")
        return line.decode("latin-1").strip()

    def _read_bytes_of_line(self, key: str, path: str | None) -> bytes:
        line = self._read(key, path).removesuffix(b"\n").removesuffix(b"\r")
        if b"\n" in line:
            raise ValueError(f"{key}: it has more than one line")
        return line

    def _read(self, key: str, path: str | None) -> bytes:
        if path is None:
            return b""
        path = self._usable(key, path, is_secret=True)
        try:
            read = read_regular(path, SECRET_MAX_BYTES + 1)
        except OSError as e:
            raise ValueError(f"{key}: {path}: {e.strerror}") from None
        if read is None or len(read[1]) > SECRET_MAX_BYTES:
            raise ValueError(f"{key}: {path} is no file, or has more than {SECRET_MAX_BYTES} bytes")
        return read[1]


def _read_path(place: Located) -> tuple[tuple[bytes, ...], bool]:
    """Return the segments of a path, and whether a server may take it for another one."""
    path = place.path or "/"
    if not place.origin.startswith(("http://", "https://")):  # it is taken as it is
        return tuple(path.encode().split(b"/")[1:]), climbs(path)
    if "%" not in path and "/." not in path:  # most of them
        return tuple(path.encode().split(b"/")[1:]), False
    return tuple(map(unquote_to_bytes, path.split("/")[1:])), climbs(path)
