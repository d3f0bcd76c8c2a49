"""Events are values with one line each to show."""

from __future__ import annotations

from typing import get_args

import pytest

from fsdm.events import PHRASES, SYMBOLS, Event, Kind

ID = "0123456789abcdef" * 4


def test_every_kind_has_a_symbol_and_a_phrase_of_its_own() -> None:
    kinds = list(get_args(Kind))
    assert list(SYMBOLS) == list(PHRASES) == kinds
    assert len(set(SYMBOLS.values())) == len(set(PHRASES.values())) == len(kinds)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_an_event_shows_its_symbol_the_short_id_and_what_there_is_to_say(kind: Kind) -> None:
    assert str(Event(kind, ID)) == f"{SYMBOLS[kind]} 0123456789ab {PHRASES[kind]}"
    assert str(Event(kind, ID, "2 files")) == f"{SYMBOLS[kind]} 0123456789ab {PHRASES[kind]}: 2 files"


def test_events_are_values() -> None:
    assert {Event("deleted", ID), Event("deleted", ID)} == {Event("deleted", ID, "")}
