"""Who reconciles, read from what LOCK says."""

from __future__ import annotations

import pytest

from fsdm.store.leader_lock import Owner, in_words


def test_what_lock_says_is_understood_and_told_in_words() -> None:
    says = '{"pid": 4711, "host": "worker-7", "since": 12.5, "later": true}'
    assert Owner.parse(says) == Owner(4711, "worker-7", 12.5)
    assert Owner.parse(says).says == says
    assert in_words(says) == "pid 4711 on worker-7"
    assert in_words('{"pid": 4711}') == "pid 4711"


@pytest.mark.parametrize("says", ["", "null", "[1]", '{"pid": "4711", "since": "now"}', "[" * 100_000, "{"])
def test_what_says_nothing_that_is_known_is_no_error(says: str) -> None:
    assert Owner.parse(says) == Owner()
    assert Owner.parse(says).says == says


def test_nobody_and_a_sentence_are_told_as_they_are() -> None:
    assert in_words(None) == "none"
    assert in_words("not known: it may not be read") == "not known: it may not be read"
