"""Assignments: read to their ends, line by line, or not taken at all."""

import gzip
import io
from pathlib import Path

import pytest

from fsdm import DataChunk
from fsdm.lists.assignment import read_assignment
from fsdm.model.errors import InvalidInputError, TransferError
from fsdm.model.layout import WANT_MAX_BYTES
from tests.support import Source
from tests.support.chunks import an_id


def a_chunk(**changes: object) -> DataChunk:
    files = {"a": {"url": "http://h/a", "size": 7}}
    return DataChunk(**{"id": an_id(), "dataset_id": "d" * 64, "block_range": (0, 1), "files": files, **changes})


def lines(*chunks: DataChunk) -> bytes:
    return b"".join(chunk.to_json() for chunk in chunks)


def listed(path: Path, text: bytes) -> str:
    path.write_bytes(text)
    return str(path)


def read(where: str, expected: int | None = None) -> list[DataChunk]:
    with read_assignment(where, expected) as assignment:
        return list(assignment)


def test_all_chunks_of_a_list_are_there_in_its_order_whatever_their_number(tmp_path: Path) -> None:
    chunks = [a_chunk() for _ in range(2000)]
    with read_assignment(listed(tmp_path / "list", lines(*chunks))) as assignment:
        assert len(assignment) == 2000
        assert list(assignment) == chunks
        assert assignment.chunk(chunks[700].id) == chunks[700]
        assert chunks[3].id in assignment
        assert an_id() not in assignment


def test_documents_are_not_kept_in_memory(tmp_path: Path) -> None:
    with read_assignment(listed(tmp_path / "list", lines(a_chunk(note="x" * 100_000)))) as assignment:
        assert set(map(type, assignment._numbers.values())) == {int}
        assert assignment._documents.seek(0, io.SEEK_END) > 100_000


def test_blank_lines_are_skipped_and_the_last_line_may_lack_its_end(tmp_path: Path) -> None:
    chunks = [a_chunk(), a_chunk()]
    text = b"\n \r\n" + chunks[0].to_json() + b"\n\n" + chunks[1].to_json().rstrip()
    assert read(listed(tmp_path / "list", text)) == chunks


def test_a_chunk_may_be_listed_twice_only_with_the_same_document(tmp_path: Path) -> None:
    chunk = a_chunk()
    other = a_chunk(id=chunk.id, block_range=(0, 2))
    assert len(read(listed(tmp_path / "same", lines(chunk, a_chunk(), chunk)))) == 2
    with pytest.raises(InvalidInputError, match=r"list:3: id: [0-9a-f]{64} is listed before, with another document"):
        read(listed(tmp_path / "list", lines(chunk, a_chunk(), other)))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "EOF"),
        (b"[]", "object"),
        (b"{}", "id: "),
        (a_chunk().to_json().replace(b"http:", b""), "files.a"),
        (a_chunk().to_json()[:-20], "EOF"),
        (a_chunk(note="x" * WANT_MAX_BYTES).to_json(), "the line has more than the 1048576 bytes"),
        (b"\xff", "JSON"),
        (b'{"id": }', "list:2: Invalid JSON: expected value at column 8"),  # the line is named once
    ],
    ids=str,
)
def test_a_line_that_is_no_want_is_named_and_nothing_is_taken(tmp_path: Path, line: bytes, why: str) -> None:
    with pytest.raises(InvalidInputError, match="list:2: ") as e:
        read(listed(tmp_path / "list", lines(a_chunk()) + line + b"\n" + lines(a_chunk())))
    assert why.lower() in str(e.value).lower()


def test_a_list_cut_within_any_byte_of_its_last_line_is_refused(tmp_path: Path) -> None:
    text = lines(a_chunk(), a_chunk())
    second = text.index(b"\n") + 1
    for end in range(second + 1, len(text) - 1):
        with pytest.raises(InvalidInputError, match="list:2"):
            read(listed(tmp_path / "list", text[:end]))


def test_a_gzip_list_is_known_by_its_first_bytes_and_refused_without_its_end(tmp_path: Path) -> None:
    chunks = [a_chunk() for _ in range(50)]
    packed = gzip.compress(lines(*chunks))
    assert read(listed(tmp_path / "list.of.any.name", packed)) == chunks
    for broken in (packed[:-1], packed[:-9], packed[: len(packed) // 2], packed[:-8] + bytes(8)):
        with pytest.raises(InvalidInputError, match="broken"):
            read(listed(tmp_path / "broken", broken))


def test_a_file_that_is_not_there_or_is_a_directory_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InvalidInputError, match=f"{path} cannot be read"):
            read(str(path))


@pytest.mark.parametrize("packed", [False, True])
def test_a_list_may_come_from_a_url(source: Source, packed: bool) -> None:
    chunks = [a_chunk() for _ in range(3000)]
    text = lines(*chunks)
    assert read(source.put("/list", gzip.compress(text) if packed else text)) == chunks


def test_a_chunked_answer_tells_its_end_as_well(source: Source) -> None:
    text = lines(a_chunk(), a_chunk())
    source.fault("/list", chunked=text, no_length=True)
    assert len(read(source.put("/list", b""))) == 2


def test_a_transfer_that_breaks_between_two_lines_is_an_error(source: Source) -> None:
    first = lines(a_chunk())
    url = source.put("/list", first + lines(a_chunk()))
    source.fault("/list", cut_at=len(first))
    with pytest.raises(TransferError) as e:
        read(url)
    assert e.value.hint == "nothing was changed: ask again when it answers"


def test_a_list_may_be_named_by_file_and_a_scheme_that_nothing_fetches_is_told(tmp_path: Path) -> None:
    chunk = a_chunk()
    assert read(f"file://{listed(tmp_path / 'a list', lines(chunk)).replace(' ', '%20')}") == [chunk]
    with pytest.raises(TransferError, match=r"nope://h/list: nothing installed here fetches nope://"):
        read("nope://h/list")
    with pytest.raises(InvalidInputError, match=r"'://' is no URL"):
        read("://")


@pytest.mark.parametrize(("text", "tool"), [(b'[{"id": 1}]', "jq -c '.[]'"), (b"{\n}", "jq -c .")])
def test_a_list_that_is_not_in_lines_is_told_how_to_become_one(tmp_path: Path, text: bytes, tool: str) -> None:
    with pytest.raises(InvalidInputError, match="list:1: ") as e:
        read(listed(tmp_path / "list", text))
    assert e.value.hint.startswith(f"have one want in a line, as {tool} does; nothing was changed")


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_without_a_length_is_refused_unless_its_last_line_or_the_asker_says_it(
    source: Source, packed: bool
) -> None:
    def put(text: bytes) -> str:
        return source.put("/list", gzip.compress(text) if packed else text)

    chunks = [a_chunk(), a_chunk()]
    source.fault("/list", no_length=True)
    with pytest.raises(TransferError, match="does not say how long it is"):
        read(put(lines(*chunks)))
    assert read(put(lines(*chunks) + b'{"end": 2}\n')) == chunks
    assert read(put(lines(*chunks)), expected=2) == chunks


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("kept", "expected"), [(1, 3), (3, 4), (0, 3)])
def test_a_list_that_ends_between_two_lines_is_refused_where_its_length_is_known(
    tmp_path: Path, packed: bool, kept: int, expected: int
) -> None:
    """Each line may be a gzip member: the end of one is no end of the list."""
    members = [lines(a_chunk()) for _ in range(3)]
    text = b"".join(gzip.compress(member) if packed else member for member in members[:kept])
    with pytest.raises(InvalidInputError, match=f"{kept} wants came, and it has {expected}"):
        read(listed(tmp_path / "list", text), expected=expected)


@pytest.mark.parametrize("footer", [b'{"end": 3}', b'{"end":2}\n', b' {"end" : 2 }\r\n', b'{"end": 2}\n\n'])
def test_last_line_says_how_many_wants_there_are(tmp_path: Path, footer: bytes) -> None:
    chunks = [a_chunk(), a_chunk()]
    path = listed(tmp_path / "list", lines(*chunks) + footer)
    if b"3" in footer:
        with pytest.raises(InvalidInputError, match="2 wants came, and it has 3"):
            read(path)
    else:
        assert read(path) == chunks


def test_nothing_stands_behind_the_end(tmp_path: Path) -> None:
    for more in (lines(a_chunk()), b'{"end": 1}'):
        with pytest.raises(InvalidInputError, match="list:3: there is more behind the end"):
            read(listed(tmp_path / "list", lines(a_chunk()) + b'{"end": 1}\n' + more))


def test_the_same_want_twice_counts_twice(tmp_path: Path) -> None:
    chunk = a_chunk()
    assert read(listed(tmp_path / "list", lines(chunk, chunk) + b'{"end": 2}\n')) == [chunk]


def test_an_answer_that_is_none_is_named_without_the_secrets_of_its_url(source: Source) -> None:
    url = source.put("/list", b"").replace("http://", "http://user:hidden@") + "?token=hidden"
    source.fault("/list", status=403)
    with pytest.raises(TransferError, match=r"/list: HTTP 403") as e:
        read(url)
    assert "hidden" not in str(e.value)


def test_nothing_is_left_behind_in_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with read_assignment(listed(tmp_path.parent / "list", lines(a_chunk()))):
        assert list(tmp_path.iterdir()) == []


def test_part_of_a_list_is_no_list(source: Source) -> None:
    text = lines(source.chunk())
    url = source.put("/list", text)
    source.fault("/list", headers={"Content-Range": f"bytes 0-{len(text) - 1}/99999", "Content-Length": str(len(text))})
    with pytest.raises(TransferError, match="HTTP 200 OK, a part"):
        read(url)
