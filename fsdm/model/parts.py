"""The record of a partial (`partial/ID/PARTS`): which bytes of its files are there, and of which version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from fsdm.model.documents import Digest, Document, Size


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a file behind a hole, from `start` to before `end`, and their BLAKE3."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    start: Size
    end: Size
    blake3: Digest


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One file in `partial/ID/PARTS`: its version, and a BLAKE3 of its first `size` bytes.

    `url` is the BLAKE3 of its URL, `total` the size of the whole where the server said it; `complete`: it is all there;
    `holes`: behind `size` there may be holes, and only the `extents` count there; `open_ended`: the connection's end
    alone tells where the file ends.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")  # nobody else writes it

    url: Digest
    validator: str | None = None
    etag: str | None = None
    total: Size | None = None
    size: Size = 0
    blake3: Digest | None = None
    complete: bool = False
    holes: bool = False
    extents: tuple[Extent, ...] = ()
    open_ended: bool = False


class PartsDocument(Document):
    """The document in `partial/ID/PARTS`: the files of an interrupted attempt, and its boot."""

    boot_id: str | None = None
    files: dict[str, PartRecord]
