"""Digests: those of all bytes that were put in, and a buffer for each thread."""

from __future__ import annotations

import hashlib
import threading

import pytest
from blake3 import blake3

from fsdm.model.documents import FileEntry
from fsdm.store.digests import BUFFER_BYTES, Digests, thread_buffer

BYTES = b"some bytes" * 1000


@pytest.mark.parametrize("sha256", [True, False])
def test_digests_are_those_of_all_pieces_in_order(sha256: bool) -> None:
    digests = Digests(sha256=sha256)
    for piece in (BYTES[:7], memoryview(BYTES)[7:]):
        digests.update(piece)
    assert digests.blake3 == blake3(BYTES).hexdigest()
    assert digests.sha256 == (hashlib.sha256(BYTES).hexdigest() if sha256 else None)


@pytest.mark.parametrize(
    ("changes", "why"), [({}, None), ({"blake3": "0" * 64}, "the blake3 "), ({"sha256": "0" * 64}, "the sha256 ")]
)
def test_a_digest_that_ready_does_not_say_is_named(changes: dict[str, str], why: str | None) -> None:
    digests = Digests(sha256=True)
    digests.update(BYTES)
    said = {"size": len(BYTES), "blake3": digests.blake3, "sha256": digests.sha256, **changes}
    found = digests.difference(FileEntry(**said))
    assert (found is None) if why is None else (found is not None and why in found and "0" * 64 in found)


def test_each_thread_has_a_buffer_of_its_own() -> None:
    others: list[memoryview] = []
    thread = threading.Thread(target=lambda: others.append(thread_buffer()))
    thread.start()
    thread.join()
    assert thread_buffer() is thread_buffer()
    assert len(thread_buffer()) == BUFFER_BYTES
    assert others[0].obj is not thread_buffer().obj
