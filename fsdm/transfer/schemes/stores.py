"""The URLs of object stores, and the HTTP requests that they stand for. Pure.

A key is taken as it is: nothing of it is unquoted, whatever is in it; only a version may follow (`?versionId=…`).
Invariants: a key with a segment `.` or `..` is refused, for it would be signed as one thing and read as another; no URL
that is made leads to another host than its endpoint and those below it, whatever bucket, key or region say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from fsdm.model.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsdm.transfer.http.route import Access

REGION: Final = re.compile(r"[a-z0-9-]{1,32}\Z")
_BUCKET: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{0,254}\Z")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z")  # with a dot in it, no certificate would hold
_VERSION: Final = re.compile(r"[A-Za-z0-9._:%-]{1,1024}\Z")


@dataclass(frozen=True, slots=True)
class Store:
    """A kind of object store: its parameter for a version, and what holds where a source says nothing.

    `endpoint` gives the one of a region, "" where there is none; `signs` says whether requests are signed by a key.
    """

    version: str
    region: str
    endpoint: Callable[[str], str]
    signs: bool
    hosts_buckets: bool = False  # each at a host of its own, below the endpoint's
    headers: Mapping[str, str] = field(default_factory=dict)

    def find(self, url: str, access: Access, region: str) -> str:
        """Return the URL of http or https that an object is at.

        Raises:
            TransferError: it names no object, or there is no endpoint.
        """
        bucket, key, version = self._read(url)
        query = "&".join(filter(None, (version and f"{self.version}={quote(version, '')}", access.sas)))
        return f"{self._base(bucket, access, region)}/{quote(key, '/')}{'?' * bool(query)}{query}"

    def find_listing(self, bucket: str, query: Mapping[str, str], access: Access, region: str) -> str:
        """Return the URL of http or https that lists a bucket.

        Raises:
            TransferError: it is no name of one, or there is no endpoint.
        """
        if not _BUCKET.match(bucket):
            raise TransferError("it names no bucket", hint="as in s3://BUCKET/PREFIX")
        asked = "&".join(f"{name}={quote(value, '')}" for name, value in sorted(query.items()))
        return f"{self._base(bucket, access, region)}/?{asked}"

    def _base(self, bucket: str, access: Access, region: str) -> str:
        endpoint = access.endpoint or self.endpoint(region)
        if not endpoint:
            raise TransferError("its source has no endpoint", hint="see fsdm docs sources", cause="settings")
        in_path = access.path_style
        if in_path is None:
            in_path = bool(access.endpoint) or not self.hosts_buckets or not _LABEL.match(bucket)
        scheme, _, host = endpoint.partition("://")
        return f"{endpoint}/{bucket}" if in_path else f"{scheme}://{bucket}.{host}"

    def _read(self, url: str) -> tuple[str, str, str]:
        """Return bucket, key and version ("" for none)."""
        bucket, _, key = url.partition("://")[2].partition("/")
        before, mark, version = key.rpartition(f"?{self.version}=")
        key, version = (before, version) if mark and _VERSION.match(version) else (key, "")
        if not _BUCKET.match(bucket) or not key:
            raise TransferError("it names no object", hint="as in s3://BUCKET/KEY")
        if not {".", ".."}.isdisjoint(key.split("/")):
            raise TransferError("a key with . or .. between its slashes cannot be asked for")
        return bucket, key, version


def _amazon(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com{'.cn' * region.startswith('cn-')}"


STORES: Final[Mapping[str, Store]] = {
    "s3": Store("versionId", "us-east-1", _amazon, signs=True, hosts_buckets=True),
    "gs": Store("generation", "auto", lambda _: "https://storage.googleapis.com", signs=True),
    "az": Store("versionid", "", lambda _: "", signs=False, headers={"x-ms-version": "2023-11-03"}),
}
