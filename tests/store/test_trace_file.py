"""A trace's files: one writer, a bound, whole lines, and readers that see each line once, over rotations."""

import errno
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import fsdm.store.trace_file
from fsdm.model.errors import InvalidInputError
from fsdm.store.trace_file import FILES, MIN_BYTES, TraceFile, documents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def line(number: int, size: int = 1000) -> str:
    return json.dumps({"seq": number, "event": "file", "text": "x" * size}) + "\n"


def numbers(path: Path) -> list[int]:
    return [document["seq"] for document in documents(path, follow=False) if document is not None]


def some(found: Any, count: int) -> list[Any]:
    """The next ones of a trace that is followed; "-" where nothing has come."""
    return ["-" if one is None else one["seq"] for one in islice(found, count)]


def test_numbers_go_on_where_the_last_process_ended_and_a_torn_line_is_none(path: Path) -> None:
    file = TraceFile(path, MIN_BYTES)
    assert file.open() == 0
    file.append(line(1) + line(2))
    file.close()
    with path.open("a") as torn:
        torn.write(line(3)[:100])
    file = TraceFile(path, MIN_BYTES)
    assert file.open() == 2
    file.append(line(3))
    file.close()
    assert numbers(path) == [1, 2, 3]


def test_numbers_go_on_where_the_process_was_killed_between_a_rotation_and_its_first_line(path: Path) -> None:
    path.with_name("trace.jsonl.1").write_text(line(7))
    assert TraceFile(path, MIN_BYTES).open() == 7


def test_files_are_rotated_within_the_bound_and_a_reader_goes_through_all(path: Path) -> None:
    file = TraceFile(path, MIN_BYTES)
    file.open()
    for number in range(1, 501):
        file.append(line(number))
        there = list(path.parent.iterdir())
        assert sum(one.stat().st_size for one in there) <= MIN_BYTES
    file.close()
    assert len(there) == FILES
    left = numbers(path)
    assert left == list(range(left[0], 501))
    assert len(left) > 70


def test_a_reader_that_follows_sees_each_line_once_over_a_rotation(path: Path) -> None:
    file = TraceFile(path, MIN_BYTES)
    file.open()
    file.append(line(1))
    found = documents(path, follow=True)
    assert some(found, 2) == [1, "-"]
    for number in range(2, 60):  # more than two files
        file.append(line(number))
    assert some(found, 59) == [*range(2, 60), "-"]
    with path.open("a") as torn:  # a part of a line is none yet
        torn.write(line(60)[:5])
    assert some(found, 1) == ["-"]
    with path.open("a") as torn:
        torn.write(line(60)[5:])
    assert some(found, 2) == [60, "-"]
    os.truncate(path, 0)
    file.append(line(61))
    assert some(found, 2) == [61, "-"]


def test_what_is_rotated_away_before_it_is_read_is_told_by_its_numbers(path: Path) -> None:
    file = TraceFile(path, MIN_BYTES)
    file.open()
    file.append(line(1))
    found = documents(path, follow=True)
    assert some(found, 2) == [1, "-"]
    for number in range(2, 201):
        file.append(line(number))
    read = list(iter(found.__next__, None))
    [gap] = [one for one in read if one is not None and one["event"] == "gap"]
    there = [one["seq"] for one in read if one is not None and one is not gap]
    assert there == [number for number in range(2, 201) if number not in range(gap["first"], gap["last"] + 1)]
    assert gap["text"] == f"{gap['last'] - gap['first'] + 1} events gone with their file before they were read"


def test_a_file_that_was_taken_away_is_made_anew(path: Path) -> None:
    file = TraceFile(path, MIN_BYTES)
    file.open()
    file.append(line(1))
    path.rename(path.with_name("elsewhere"))
    file.append(line(2))
    assert numbers(path) == [2]


def test_one_process_writes_and_another_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdm.store.trace_file, "TAKE_OVER_S", 0.0)
    first, second = TraceFile(path, MIN_BYTES), TraceFile(path, MIN_BYTES)
    first.open()
    with pytest.raises(BlockingIOError, match="another process writes it"):
        second.open()
    first.append(line(1))
    first.close()
    assert second.open() == 1


def test_a_line_of_which_a_part_was_refused_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TraceFile(path, MIN_BYTES)
    file.open()

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:10])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(fsdm.store.trace_file, "write_all", full)
        with pytest.raises(OSError, match="full"):
            file.append(line(1))
    file.append(line(2))
    file.append(line(3))
    assert numbers(path) == [2, 3]
    assert path.read_text() == f"{line(1)[:10]}\n{line(2)}{line(3)}", "only what is torn is ended"


@pytest.mark.parametrize(
    ("name", "max_bytes", "why"),
    [
        ("missing/trace", MIN_BYTES, "cannot be written: No such file"),
        (".", MIN_BYTES, "cannot be written: Is a directory"),
        ("fifo", MIN_BYTES, "is no regular file"),
        ("trace", MIN_BYTES - 1, "at least 100000 bytes"),
    ],
)
def test_what_can_be_no_trace_is_refused_at_once(tmp_path: Path, name: str, max_bytes: int, why: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInputError, match=why):
        TraceFile(tmp_path / name, max_bytes)


def test_no_trace_is_an_error_with_a_way_out(path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no trace can be read at /.*: No such file"):
        next(documents(path, follow=True))
