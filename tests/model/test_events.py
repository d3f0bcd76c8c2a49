"""Events are values with one line each to show."""

import logging
from dataclasses import asdict
from typing import get_args

import pytest

from fsdm.model.events import PHRASES, SYMBOLS, Event, Kind

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


def test_a_log_record_carries_what_an_event_says_and_nothing_that_it_does_not() -> None:
    told = Event("available", ID, "2 files", "d" * 64, 20, 0.0, 0.25)
    assert told.fields() == {
        "event": "available",
        "chunk_id": ID,
        "text": "2 files",
        "dataset_id": "d" * 64,
        "size_bytes": 20,
        "after_s": 0.0,
        "fetch_s": 0.25,
    }
    assert Event("failed", ID, cause="http_404").fields() == {"event": "failed", "chunk_id": ID, "cause": "http_404"}
    assert Event("file", ID, size_bytes=0).fields()["size_bytes"] == 0
    record = logging.makeLogRecord({})
    assert not set(vars(record)) & {"event", *asdict(told)}  # `logger.info(…, extra=…)` would refuse them


def test_document_always_has_kind_id_and_text() -> None:
    assert Event("resumed", "").document() == {"kind": "resumed", "chunk_id": "", "text": ""}
    told = Event("file", ID, "a", "d" * 64, 0).document()
    assert told == {"kind": "file", "chunk_id": ID, "text": "a", "dataset_id": "d" * 64, "size_bytes": 0}
