"""The sizes of many chunks, as their READYs say, read one after the other in few calls."""

from __future__ import annotations

import os
from functools import partial
from json import JSONDecoder
from typing import TYPE_CHECKING, Final

from fsdm.model.layout import READY
from fsdm.store.filesystem import DIRECTORY, SAFE, Descriptor, opened
from fsdm.store.json_files import declared_bytes, read_document

if TYPE_CHECKING:
    from fsdm.model.layout import Layout, Place

READ_BYTES: Final = 8192  # a READY of some fifty files; a longer one is read as any document

_decode: Final = JSONDecoder().raw_decode


class ReadySizes:
    """A reader of READYs, by dataset: names are looked up below its directory. For one thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._dataset_id = ""
        self._directory = Descriptor()
        self._file = Descriptor()  # one for all: of a hundred thousand, making it would count
        self._open = partial(os.open)

    def of(self, place: Place) -> int | None:
        """Return how many bytes the chunk there has; None where READY does not say."""
        if place.dataset_id != self._dataset_id:
            self._enter(place.dataset_id)
        if self._directory.fd is not None:
            try:
                return self._of_small(f"{place.name}/{READY}")
            except (OSError, ValueError, AttributeError, RecursionError):
                pass  # it is long, no object, or no file: it is read with more care
        return declared_bytes(read_document(f"{self._layout.path(place)}/{READY}").get("files"))

    def close(self) -> None:
        self._directory.close()

    def _enter(self, dataset_id: str) -> None:
        self._directory.close()
        self._dataset_id = dataset_id
        try:
            self._directory = opened(self._layout.dataset(dataset_id), DIRECTORY)
        except OSError:  # it has just gone, mostly
            return
        self._open = partial(os.open, dir_fd=self._directory.fd)

    def _of_small(self, path: str) -> int | None:
        it = self._file
        (it.fd,) = map(self._open, (path,), (os.O_RDONLY | SAFE,))  # see `Descriptor`
        with it as fd:
            text = str(os.read(fd, READ_BYTES), "utf-8")
        document, end = _decode(text)
        if text[end:].strip(" \t\n\r"):
            raise ValueError("more than one document")
        return declared_bytes(document.get("files"))
