"""Documents: each is written back as it was read, and an error names its field."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fsdm.model.documents import DataChunk, Failure, FileEntry, FileSource, Manifest, MarkerStamp
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import NAME_MAX_BYTES, U64_MAX, Place, file_name_fault

ID, DATASET, SHA = "a" * 64, "d" * 64, "5" * 64
URL = "https://host/blocks.parquet"

quick = settings(max_examples=150, deadline=None)


def _want(**changes: Any) -> dict[str, Any]:
    """A want as a plain JSON object; a key that is changed to `...` is left out."""
    document = {"id": ID, "dataset_id": DATASET, "block_range": {"start": 0, "end": 35}, "files": {"b.parquet": URL}}
    return {key: value for key, value in {**document, **changes}.items() if value is not ...}


def _parse(**changes: Any) -> DataChunk:
    return DataChunk.parse_want(json.dumps(_want(**changes)).encode(), ID)


hex_ids = st.binary(min_size=32, max_size=32).map(bytes.hex)
blocks = st.integers(0, U64_MAX) | st.sampled_from([0, 1, 2**63 - 1, 2**63, U64_MAX - 1, U64_MAX])
ranges = st.tuples(blocks, blocks).filter(lambda r: r[0] < r[1])
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(
    lambda name: file_name_fault(name) is None
)
urls = st.from_regex(
    r"(http|https|HTTPS)://[a-z0-9.]{1,20}(:[1-9][0-9]{0,3})?(/[A-Za-z0-9?=&%+~._-]{0,30}){0,3}", fullmatch=True
)
sources = urls | st.fixed_dictionaries({"url": urls}, optional={"size": blocks, "sha256": hex_ids})
texts = st.text(st.characters(codec="utf-8"))
plain = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
unknown = st.dictionaries(texts.map(lambda key: f"x{key[:12]}"), json_values, max_size=3)
known = st.fixed_dictionaries(
    {
        "id": hex_ids,
        "dataset_id": hex_ids,
        "block_range": ranges.map(lambda blocks: {"start": blocks[0], "end": blocks[1]}),
        "files": st.dictionaries(names, sources, min_size=1, max_size=4),
    }
)
wants = st.builds(lambda more, ours: more | ours, unknown, known)


@given(wants)
@quick
def test_a_want_is_written_back_as_it_was_read(want: dict[str, Any]) -> None:
    chunk = DataChunk.parse_want(json.dumps(want).encode(), want["id"])
    files = {name: {"url": file} if isinstance(file, str) else file for name, file in want["files"].items()}
    assert json.loads(chunk.to_json()) == {**want, "files": files}
    assert DataChunk.parse_want(chunk.to_json(), chunk.id) == DataChunk.parse(chunk.to_json()) == chunk
    assert chunk.to_json().endswith(b"}\n")
    assert chunk.to_json().count(b"\n") == 1


@given(wants, st.data())
@settings(quick, max_examples=60)
def test_no_proper_prefix_of_a_want_can_be_taken(want: dict[str, Any], data: st.DataObject) -> None:
    text = DataChunk(**want).to_json().rstrip()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(InvalidInputError, match="Invalid JSON"):
        DataChunk.parse_want(cut, want["id"])


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@quick
def test_what_is_no_want_is_an_invalid_input_and_nothing_else(text: bytes) -> None:
    for parse in (lambda: DataChunk.parse_want(text, ID), lambda: Manifest.parse(text), lambda: Failure.parse(text)):
        with pytest.raises(InvalidInputError):
            parse()


@given(st.dictionaries(st.sampled_from(["id", "dataset_id", "block_range", "files", "x"]), json_values))
@quick
def test_no_value_of_a_known_key_raises_anything_else(changes: dict[str, Any]) -> None:
    try:
        chunk = _parse(**changes)
    except InvalidInputError:
        return
    assert chunk.id == ID


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
@settings(quick, max_examples=30)
def test_ids_may_be_given_as_32_bytes(raw: bytes, dataset: bytes) -> None:
    for kind in (bytes, bytearray):
        chunk = DataChunk(**_want(id=kind(raw), dataset_id=kind(dataset)))
        assert (chunk.id, chunk.dataset_id) == (raw.hex(), dataset.hex())
        assert chunk == DataChunk(**_want(id=raw.hex(), dataset_id=dataset.hex()))


@pytest.mark.parametrize(
    "block_range", [range(3, 35), (3, 35), [3, 35], {"start": 3, "end": 35}, {"start": 3, "end": 35, "unit": "block"}]
)
def test_a_block_range_may_be_given_in_every_usual_form(block_range: object) -> None:
    chunk = DataChunk(**_want(block_range=block_range))
    assert chunk.block_range == range(3, 35)
    assert chunk.place == Place.of(DATASET, range(3, 35), ID)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, U64_MAX), (U64_MAX - 1, U64_MAX), (2**63 - 1, 2**63)])
def test_the_borders_of_u64_are_exact_through_json(start: int, end: int) -> None:
    chunk = _parse(block_range=[start, end], files={"b": {"url": URL, "size": end}})
    again = DataChunk.parse(chunk.to_json())
    assert (again.block_range.start, again.block_range.stop, again.files["b"].size) == (start, end, end)


@pytest.mark.parametrize("stated", [..., None, ID])
def test_the_markers_name_says_the_id(stated: object) -> None:
    assert _parse(id=stated).id == ID


def test_unknown_keys_are_kept_at_every_level_and_go_on_into_the_manifest() -> None:
    chunk = _parse(note={"by": ["me", 1, True]}, files={"b": {"url": URL, "etag": '"7"'}})
    written = json.loads(chunk.to_json())
    assert written["note"] == {"by": ["me", 1, True]}
    assert written["files"]["b"]["etag"] == '"7"'
    manifest = Manifest.of(chunk, {"b": FileEntry(size=1, blake3=SHA, sha256=SHA)})
    assert json.loads(manifest.to_json())["note"] == {"by": ["me", 1, True]}
    assert Manifest.parse(manifest.to_json()) == manifest


KEYS = ["cls", "data", "place", "parse", "size_bytes", "satisfies", "format", "self", "model_config", "model_extra"]


@pytest.mark.parametrize("key", [*KEYS, "__dict__", "", "é"])
def test_no_unknown_key_is_mistaken_for_something_of_ours(key: str) -> None:
    chunk = _parse(**{key: 7})
    assert json.loads(chunk.to_json())[key] == 7
    assert chunk.place == Place.of(DATASET, range(35), ID)
    manifest = Manifest.of(chunk, {"b.parquet": FileEntry(size=3, blake3=SHA, sha256=SHA)})
    assert (manifest.format, manifest.size_bytes, manifest.satisfies(chunk)) == (1, 3, True)


def test_deep_json_is_taken_or_refused_but_never_more() -> None:
    taken = []
    for depth in (10, 100, 190, 300, 100_000):
        text = json.dumps(_want()).encode()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
        try:
            chunk = DataChunk.parse_want(text, ID)
        except InvalidInputError:
            continue
        taken.append(depth)
        assert DataChunk.parse_want(chunk.to_json(), ID) == chunk
        manifest = Manifest.of(chunk, {"b.parquet": FileEntry(size=1, blake3=SHA, sha256=SHA)})
        assert Manifest.parse(manifest.to_json()) == manifest
    assert taken[:2] == [10, 100]
    assert 100_000 not in taken


def test_documents_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _parse().id = "b" * 64  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "b" * 64}, f"^id: is {'b' * 64}, but the marker is called {ID}$"),
        ({"id": ID.upper()}, "^id: must be 64 lower-case hex digits"),
        ({"dataset_id": ...}, "^dataset_id: Field required$"),
        ({"dataset_id": "../../etc"}, "^dataset_id: must be 64 lower-case hex digits"),
        ({"dataset_id": 7}, "^dataset_id: must be 64 lower-case hex digits"),
        ({"block_range": ...}, "^block_range: Field required$"),
        ({"block_range": "0-35"}, "^block_range: must be a range"),
        ({"block_range": {"start": 0}}, "^block_range: must be a range"),
        ({"block_range": [0, 1, 2]}, "^block_range: must be a range"),
        ({"block_range": [0, 0]}, "^block_range: must not be empty"),
        ({"block_range": [5, 4]}, r"^block_range: must not be empty or reversed, it is \[5, 4\)"),
        ({"block_range": [-1, 4]}, "^block_range: start must be within"),
        ({"block_range": [0, U64_MAX + 1]}, "^block_range: end must be within"),
        ({"block_range": [0, 10**400]}, "^block_range: end must be within"),
        ({"block_range": [0, 3.0]}, "^block_range: end must be an integer, not float$"),
        ({"block_range": [0, math.nan]}, "^block_range: end must be an integer, not float$"),
        ({"block_range": [0, math.inf]}, "^block_range: end must be an integer, not float$"),
        ({"block_range": [False, True]}, "^block_range: start must be an integer, not bool$"),
        ({"block_range": ["0", "3"]}, "^block_range: start must be an integer, not str$"),
        ({"files": ...}, "^files: Field required$"),
        ({"files": {}}, "^files: a chunk has at least one file$"),
        ({"files": dict.fromkeys(map(str, range(10_001)), URL)}, "^files: a chunk has at most 10000 files, not 10001$"),
        ({"files": [URL]}, "^files: Input should be (a valid dictionary|an object)$"),
        ({"files": {"a/b": URL}}, "^files: the file name 'a/b' contains '/' or NUL$"),
        ({"files": {"..": URL}}, r"^files: the file name '\.\.' is a name of a directory$"),
        ({"files": {"": URL}}, "^files: the file name '' is empty$"),
        ({"files": {"x" * (NAME_MAX_BYTES + 1): URL}}, "^files: the file name 'xxx.* is longer than 255 bytes$"),
        ({"files": {"b": "//host/x"}}, "^files.b.url: must begin with http://, https://, or another scheme, as s3://$"),
        ({"files": {"b": "simplecache::s3://lake/x"}}, "^files.b.url: must begin with"),
        ({"files": {"b": "s3://"}}, "^files.b.url: must say what is asked for"),
        ({"files": {"b": "s3://lake/a\nb"}}, "^files.b.url: must say what is asked for, without control"),
        ({"files": {"b": "/x"}}, "^files.b.url: must begin with"),
        ({"files": {"b": "http:///x"}}, "^files.b.url: must have a host"),
        ({"files": {"b": "http://host/a b"}}, "^files.b.url: must have a host, and no spaces"),
        ({"files": {"b": "http://host/\r\nX: y"}}, "^files.b.url: must have a host, and no spaces"),
        ({"files": {"b": "http://[::1/x"}}, "^files.b.url: "),
        ({"files": {"b": None}}, "^files.b: "),
        ({"files": {"b": {"size": 1}}}, "^files.b.url: Field required$"),
        ({"files": {"b": {"url": URL, "size": -1}}}, "^files.b.size: "),
        ({"files": {"b": {"url": URL, "size": 1.0}}}, "^files.b.size: "),
        ({"files": {"b": {"url": URL, "size": math.nan}}}, "^files.b.size: "),
        ({"files": {"b": {"url": URL, "size": True}}}, "^files.b.size: "),
        ({"files": {"b": {"url": URL, "size": "1"}}}, "^files.b.size: "),
        ({"files": {"b": {"url": URL, "size": U64_MAX + 1}}}, "^files.b.size: "),
        ({"files": {"b": {"url": URL, "sha256": SHA + "\n"}}}, "^files.b.sha256: "),
        ({"files": {"b": {"url": URL, "sha256": "A" * 64}}}, "^files.b.sha256: "),
        ({"files": {"b": {"url": URL, "sha256": ""}}}, "^files.b.sha256: "),
    ],
)
def test_a_want_that_cannot_be_taken_says_which_part_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _parse(**changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"id": b"short"}, "id"), ({"dataset_id": "x"}, "dataset_id")),
        *(({"block_range": range(0, 10, 2)}, "block_range"), ({"block_range": range(10, 0, -1)}, "block_range")),
        *(({"files": {"\ud800": URL}}, "files"), ({"files": {7: URL}}, "files")),
        ({"files": {"b": "http://host/\ud800"}}, "files.b.url"),
    ],
)
def test_the_constructor_names_the_field_as_an_attribute_too(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        DataChunk(**_want(**changes))
    assert caught.value.field == field


NO_OBJECTS = [b"", b"{", b"null", b"[]", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"x": "\\ud800"}', b"{} {}"]


@pytest.mark.parametrize("text", [*NO_OBJECTS, b'{"x": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"Invalid JSON|should be an object"):
        DataChunk.parse_want(text, ID)


def _manifest(**changes: Any) -> Manifest:
    document = {**_want(files={"b.parquet": {"size": 7, "blake3": SHA, "sha256": SHA}}), "format": 1, **changes}
    return Manifest.parse(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "satisfied"),
    [
        ({}, True),
        ({"files": {"b.parquet": "http://elsewhere/signed?x=1"}}, True),  # a signed URL differs each time
        ({"files": {"b.parquet": {"url": URL, "size": 7, "sha256": SHA}}}, True),
        ({"note": "what is unknown does not count"}, True),
        ({"files": {"b.parquet": {"url": URL, "size": 8}}}, False),
        ({"files": {"b.parquet": {"url": URL, "size": 0}}}, False),
        ({"files": {"b.parquet": {"url": URL, "sha256": "6" * 64}}}, False),
        ({"files": {"b.parquet": {"url": URL, "blake3": SHA}}}, True),
        ({"files": {"b.parquet": {"url": URL, "blake3": "6" * 64}}}, False),
        ({"files": {"c.parquet": URL}}, False),
        ({"files": {"b.parquet": URL, "c.parquet": URL}}, False),
        ({"block_range": [0, 36]}, False),
        ({"dataset_id": "e" * 64}, False),
    ],
)
def test_a_manifest_satisfies_a_want_of_the_same_place_and_files(changes: dict[str, Any], satisfied: bool) -> None:
    assert _manifest().satisfies(_parse(**changes)) is satisfied


@pytest.mark.parametrize(("known", "satisfied"), [({}, True), ({"sha256": SHA}, False)])
def test_sha256_may_follow_only_where_ready_has_none(known: dict[str, str], satisfied: bool) -> None:
    manifest = _manifest(files={"b.parquet": {"size": 7, "blake3": SHA, **known}})
    chunk = _parse(files={"b.parquet": {"url": URL, "sha256": "6" * 64}})
    assert not manifest.satisfies(chunk)
    assert manifest.satisfies(chunk, sha256_may_follow=True) is satisfied


def test_a_want_of_fewer_files_than_there_are_is_not_satisfied() -> None:
    more = _manifest(files={name: {"size": 7, "blake3": SHA} for name in ("b.parquet", "c.parquet")})
    assert not more.satisfies(_parse())
    assert more.size_bytes == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "^format: "),
        ({"files": {}}, "^files: a chunk has at least one file$"),
        ({"files": {"../READY": {"size": 7, "blake3": SHA}}}, "^files: the file name"),
        ({"files": {"b": {"size": 7}}}, "^files.b.blake3: Field required$"),
        ({"files": {"b": {"blake3": SHA}}}, "^files.b.size: Field required$"),
        ({"id": None}, "^id: must be 64"),
    ],
)
def test_a_manifest_that_cannot_be_taken_says_which_part_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _manifest(**changes)


seconds = st.floats(0, 1e12)


@given(
    st.builds(
        Failure,
        id=hex_ids,
        kind=st.sampled_from(["transfer", "want", "marker", "damaged", "disk"]),
        error=texts,
        hint=texts,
        attempts=st.integers(0, 10**6),
        first_at=seconds,
        last_at=seconds,
        next_attempt_at=st.none() | seconds,
        marker=st.none() | st.builds(MarkerStamp, ino=blocks, mtime_ns=st.integers(), size=blocks),
    )
)
@quick
def test_a_failure_is_read_back_as_it_was_written(failure: Failure) -> None:
    assert Failure.parse(failure.to_json()) == failure


def test_a_kind_of_failure_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^kind: "):
        Failure.parse(json.dumps({"id": ID, "kind": "bad luck", "error": "", "first_at": 0, "last_at": 0}))


def test_sources_are_equal_when_all_that_they_say_is() -> None:
    assert FileSource(url=URL, size=1) == FileSource(url=URL, size=1, sha256=None)
    assert FileSource(url=URL, size=1) != FileSource(url=URL)


@pytest.mark.parametrize(
    "url", ["http://u:SECRET/x@h", "http://h\u2100SECRET@v/", "http://u:SECRET@[::1/", "http://u:SECRET@h:x/"]
)
def test_url_that_cannot_be_read_shows_no_password(url: str) -> None:
    for source in (url, {"url": URL, "mirrors": [url]}):
        with pytest.raises(InvalidInputError) as caught:
            DataChunk.parse(json.dumps(_want(files={"f": source})).encode())
        assert "SECRET" not in str(caught.value)
