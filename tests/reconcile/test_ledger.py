"""The ledger: totals are the sums of their entries, whatever is put in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.reconcile.ledger import PARTS, Ledger, Part

puts = st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from("abc"), st.integers(0, 100)), max_size=30)


@given(puts)
def test_the_totals_are_the_sums_of_the_last_entries(puts: list[tuple[Part, str, int]]) -> None:
    ledger, entries = Ledger(), dict[tuple[Part, str], int]()
    for part, name, size in puts:
        ledger.put(part, name, size)
        entries[part, name] = size
    for part in PARTS:
        assert ledger.of(part) == {name: size for (of, name), size in entries.items() if of == part and size}
        assert ledger.total(part) == sum(ledger.of(part).values())
    assert ledger.taken_bytes == sum(entries.values())


def test_what_it_shows_cannot_be_changed_from_outside() -> None:
    ledger = Ledger()
    ledger.put("here", "a", 1)
    with pytest.raises(TypeError):
        ledger.of("here")["a"] = 2  # type: ignore[index]
