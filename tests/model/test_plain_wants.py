"""Plain wants: what is taken for one at a glance is one, and with the values that a full look finds."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsdm.model.documents import DataChunk
from fsdm.model.layout import WANT_MAX_BYTES
from fsdm.model.plain_wants import BYTES_MAX, NUMBER_MAX, PlainWant, plain
from fsdm.model.unknown_keys import unknown_keys
from tests.support.chunks import a_want

ID, DATASET, DIGEST = "1" * 64, "d" * 64, "a" * 64
FILE = {"url": "https://lake.example/a.parquet", "size": 7, "sha256": DIGEST, "mirrors": ["s3://lake/a"]}
WANT = {
    "id": ID,
    "dataset_id": DATASET,
    "block_range": {"start": 3, "end": 5},
    "files": {"a.parquet": FILE, "b.parquet": {"url": "http://h:80/", "size": 5}},
}

URLS = [
    *[
        "http://",
        "http:///a",
        "http://h/é",
        "http://h/\\",
        "http://-/",
        "http://h:70000/",
        "http://h:9999/",
        "http://../",
    ],
    *[
        "http://u:p@h/",
        "http://[::1]/",
        "HTTP://h/",
        "ftp://h/x",
        "s3://",
        "s3://b",
        "file:///x",
        "az://box/é",
        'gs://b/"',
    ],
]
NUMBERS = [None, True, False, 0, -1, 1.0, NUMBER_MAX, 1 << 63, 1 << 64, float("nan")]
TEXTS = ["", ID, ID.upper(), ID + "\n", "x", "..", ".", "/", "a/b", "a\x00", "é", "http://h/a b", "s3://b/\t"]
OBJECTS = [[], {}, [FILE["url"]], {"url": "http://h/x"}, ["s3://b/k"] * 17]
FILE_KEYS = ("url", "size", "sha256", "blake3", "mirrors", "sha265")

odd = st.one_of(st.sampled_from([*URLS, *NUMBERS, *TEXTS, *OBJECTS]), st.integers(), st.text(max_size=3))
places = st.sampled_from(
    [
        *[(), ("id",), ("dataset_id",), ("files",), ("more",), ("block_range",)],
        *[("block_range", key) for key in ("start", "end", "more")],
        *[("files", name) for name in ("a.parquet", "c", ".", "..", "é", "a/b", "")],
        *[("files", "a.parquet", key) for key in FILE_KEYS],
    ]
)


def changed(document: object, place: tuple, value: object) -> object:
    """The document with another value at a place; without it, where that is `...`."""
    if not place:
        return value
    if not isinstance(document, dict):
        return document
    rest = {key: one for key, one in document.items() if key != place[0]}
    if value is ... and len(place) == 1:
        return rest
    return {**rest, place[0]: changed(document.get(place[0], {}), place[1:], value)}


@given(st.lists(st.tuples(places, st.one_of(odd, st.just(...))), max_size=3))
@example([(("files", "a.parquet", "size"), NUMBER_MAX - 1)] * 2)
@example([(("files", "."), FILE)])
@example([(("files", "a.parquet", "url"), "http://h:59999/")])
def test_what_is_plain_is_a_want_with_these_values_and_no_key_that_is_not_known(changes) -> None:
    document: object = WANT
    for place, value in changes:
        document = changed(document, place, None if value is ... and not place else value)
    line = json.dumps(document).encode()
    found = plain(line)
    if found is None:
        return
    chunk = DataChunk.parse(line)
    blocks = chunk.block_range
    assert found == PlainWant(chunk.id, chunk.dataset_id, blocks.start, blocks.stop, chunk.size_bytes)
    assert list(unknown_keys(chunk)) == []
    assert len(chunk.to_json()) <= WANT_MAX_BYTES


@pytest.mark.parametrize("document", [WANT, changed(WANT, ("files", "a.parquet", "blake3"), DIGEST)])
def test_usual_want_is_plain_however_it_is_written(document: dict) -> None:
    expected = PlainWant(ID, DATASET, 3, 5, 12)
    assert plain(json.dumps(document).encode()) == expected
    assert plain(json.dumps(document, indent=1, sort_keys=True).encode()) == expected
    files = {name: {"url": "https://h/x", "size": 6} for name in ("a", "b")}
    assert plain(a_want(id=ID, block_range=(3, 5), files=files).to_json()) == expected


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"7", b'"x"', b"null", b"\xff", json.dumps(changed(WANT, ("files",), {})).encode()]
    + [json.dumps(changed(WANT, place, ...)).encode() for place in (("id",), ("files", "a.parquet", "size"))]
    + [json.dumps(WANT).encode() + b" " * BYTES_MAX],
)
def test_other_line_is_for_a_full_look(line: bytes) -> None:
    assert plain(line) is None
