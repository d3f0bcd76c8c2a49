"""JSON documents on the disk, well-formed, malformed and absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm.store.json_files import declared_bytes, read_document, read_object
from tests.support.chunks import KINDS_OF_NO_FILE


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "document")


def test_an_object_is_read_as_it_stands(path: str) -> None:
    Path(path).write_text('{"since": 1, "later": [null]}')
    assert read_object(path, 100) == read_document(path) == {"since": 1, "later": [None]}


@pytest.mark.parametrize("text", [b"", b"[1]", b"null", b"x", b"\xff", b"[" * 100_000, b'{"a": "' + b"b" * 100 + b'"}'])
def test_what_is_no_object_is_an_error_or_nothing(path: str, text: bytes) -> None:
    Path(path).write_bytes(text)
    assert read_document(path, 100) == {}
    with pytest.raises(ValueError):  # noqa: PT011 each has its own words
        read_object(path, 100)


@pytest.mark.parametrize(("make", "what"), [*KINDS_OF_NO_FILE, (lambda path: None, "nothing")])
def test_what_is_no_regular_file_is_none(path: str, make: Callable[[str], None], what: str) -> None:
    make(path)
    assert read_object(path, 100) is None
    assert read_document(path) == {}


def test_what_cannot_be_read_is_an_error_or_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.store.json_files.read_regular", Mock(side_effect=PermissionError(path)))
    assert read_document(path) == {}
    with pytest.raises(PermissionError):
        read_object(path, 100)


def test_bytes_are_declared_where_every_file_says_them() -> None:
    assert declared_bytes({"a": {"size": 5}, "b": {"size": 6}}) == 11
    assert declared_bytes({}) == 0


@pytest.mark.parametrize("files", [None, [], {"a": 5}, {"a": {}}, {"a": {"size": 5}, "b": {"size": "6"}}])
def test_bytes_are_not_known_where_one_does_not_say_them(files: object) -> None:
    assert declared_bytes(files) is None
