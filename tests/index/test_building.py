"""Indexes made by commands, by parquet and by entry points; and what a poisoned indexer cannot do."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest

from fsdm.index import building as module
from fsdm.index.building import FIRST_REST_S, REST_MAX_S, Building
from fsdm.index.writing import write_chunk_index
from fsdm.model.errors import StoppedError
from fsdm.model.indexes import MEMORY_MIN, Index
from fsdm.model.layout import READY, Layout, Place, index_path
from fsdm.status.reading import read_status
from fsdm.store.filesystem import FileSystem
from fsdm.store.index_failures import IndexFailure, read_index_failures
from fsdm.store.index_file import open_chunk_index
from fsdm.store.refs import Refs
from tests.support.chunks import put_chunk
from tests.support.indexers import by_four, command
from tests.support.indexes import opened_index
from tests.support.locks import can_lock
from tests.support.waiting import eventually

DATA = {"a.bin": b"aaaabbbbaaaa", "b.bin": b"cccc", "notes.txt": b"tttt"}


@pytest.fixture
def place(layout: Layout) -> Place:
    return put_chunk(layout, files=DATA)


class Bench:
    """The making of indexes, at a time that stands still."""

    def __init__(self, layout: Layout, fs: FileSystem | None = None) -> None:
        self.now = 1_000_000.0
        self.layout = layout
        self.it = Building(layout, fs or FileSystem(), lambda: self.now)

    def build(self, place: Place, index: Index) -> IndexFailure | None:
        failure = self.it.build(place, index, lambda: None)
        assert os.listdir(self.layout.trash) == []
        assert can_lock(self.layout.path(place))
        return failure

    def fails(self, place: Place, index: Index) -> IndexFailure:
        failure = self.build(place, index)
        assert failure is not None
        assert open_chunk_index(self.layout.path(place), index.name) is None
        return failure


def _has_ended(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return True


@pytest.fixture
def bench(layout: Layout) -> Bench:
    return Bench(layout)


def test_a_command_says_where_keys_stand(bench: Bench, layout: Layout, place: Place, tmp_path: Path) -> None:
    index = by_four(tmp_path, files="*.bin")
    assert bench.it.due_at(place, index) == 0.0
    assert bench.build(place, index) is None
    assert bench.it.due_at(place, index) is None
    with opened_index(layout, place, "four") as made:
        assert list(made) == [b"aaaa", b"bbbb", b"cccc"]
        assert [(one.file, one.offset, one.length) for one in made.find(b"aaaa")] == [("a.bin", 0, 4), ("a.bin", 8, 4)]
        assert made.find(b"tttt") == []
        assert made.is_whole()


def test_where_no_index_was_ever_begun_the_directory_says_so(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path
) -> None:
    assert not Path(layout.index).exists()
    assert bench.build(place, Index(name="x", command=command(tmp_path, "sys.exit(1)"))) is not None
    assert Path(layout.index).is_dir(), "else `status` would not look for the failure"
    assert read_status(layout).chunks[place.chunk_id].index_errors != ()


def test_records_say_the_same_as_lines(bench: Bench, layout: Layout, place: Place, tmp_path: Path) -> None:
    text = """
import struct
out = sys.stdout.buffer
out.write(b"fsdmkeys")
for key, file, offset, length, group in ((b"k" * 65536, b"a.bin", 7, 9, 2**32 - 1), (b"{", b"b.bin", 2**64 - 1, 0, 3)):
    out.write(struct.pack("<IIQQI", len(key), len(file), offset, length, group) + key + file)
"""
    assert bench.build(place, Index(name="x", command=command(tmp_path, text))) is None
    with opened_index(layout, place, "x") as made:
        assert [one.document() for one in made.find(b"k" * 65536)] == [{"file": "a.bin", "offset": 7, "length": 9}]
        assert [one.document() for one in made.find(b"{")] == [{"file": "b.bin", "row_group": 3, "row": 2**64 - 1}]


def test_a_command_gets_the_files_and_nothing_of_the_environment(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_A_SOURCE", "secret")
    text = """
assert os.getcwd() == sys.argv[1], os.getcwd()
assert sys.argv[3:] == [os.environ["FSDM_CHUNK_PATH"]]
assert sys.argv[2] == "two words"
assert sys.stdin.read() == "a.bin\\0b.bin\\0"
for name in os.environ:
    print(json.dumps({"key": name, "file": "a.bin", "offset": 0}))
"""
    words = f"{command(tmp_path, text)} {layout.root} 'two words'"
    assert bench.build(place, Index(name="x", command=words, files="*.bin")) is None
    with opened_index(layout, place, "x") as made:
        assert b"PATH" in made
        assert b"TOKEN_OF_A_SOURCE" not in made


@pytest.mark.parametrize("text", ["", "sys.stdout.buffer.write(b'fsdmkeys')", "print()"])
def test_a_command_without_output_has_found_no_key(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path, text: str
) -> None:
    assert bench.build(place, Index(name="x", command=command(tmp_path, text))) is None
    with opened_index(layout, place, "x") as made:
        assert (len(made), list(made), b"aaaa" in made) == (0, [], False)


def test_keys_that_are_said_again_and_again_and_the_largest_ones_are_all_kept(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path
) -> None:
    text = """
for at in (7, 3, 3):
    print(json.dumps({"key": "again", "file": "a.bin", "offset": at}))
for at in range(3):
    print(json.dumps({"key": "k" * 65535 + str(at), "file": "b.bin", "offset": at}))
"""
    assert bench.build(place, Index(name="x", command=command(tmp_path, text))) is None
    with opened_index(layout, place, "x") as made:
        assert [one.offset for one in made.find(b"again")] == [3, 3, 7]
        assert [made.find(b"k" * 65535 + b"%d" % at)[0].offset for at in range(3)] == [0, 1, 2]
        assert [len(key) for key in made] == [5, 65536, 65536, 65536]


def test_no_file_that_matches_is_no_key(bench: Bench, layout: Layout, place: Place, tmp_path: Path) -> None:
    assert bench.build(place, by_four(tmp_path, files="*.parquet")) is None
    with opened_index(layout, place, "four") as made:
        assert (len(made), list(made), made.find(b"aaaa")) == (0, [], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sys.exit(3)", "ended with code 3"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("print('no json', file=sys.stderr); sys.exit(1)", "it said: no json"),
        ("print('[1]')", "line 1 .* no JSON object"),
        ("print()\nprint('{')", "line 2 .* cannot be taken"),
        ('print(\'{"file": "a.bin", "offset": 0}\')', "there is no 'key'"),
        ('print(\'{"hex": "0g", "file": "a.bin", "offset": 0}\')', "line 1 .* cannot be taken"),
        ('print(\'{"key": "", "file": "a.bin", "offset": 0}\')', "has 0 bytes"),
        ('print(\'{"key": "k", "file": "../READY", "offset": 0}\')', "'../READY', which it was not given"),
        ('print(\'{"key": "k", "file": "a.bin", "offset": -1}\')', "the offset -1"),
        ('print(\'{"key": "k", "file": "a.bin", "offset": 0, "row_group": 4294967295}\')', "row group"),
        ("print(json.dumps({'key': 'k' * 65537, 'file': 'a.bin', 'offset': 0}))", "has 65537 bytes"),
        ("while True: print(' ' * 1000)", "output is too much"),
        ("while True: sys.stdout.write('x' * 1000)", "line 1 .* more than"),
        (
            "n = 0\nwhile True: print(json.dumps({'key': str(n), 'file': 'a.bin', 'offset': 0})); n += 1",
            "more than 100000",
        ),
        ("sys.stdout.write('fsdmkeys1234')", "ends within record 1"),
        ("sys.stdout.buffer.write(b'fsdmkeys' + b'\\xff' * 28)", "a key of 4294967295"),
        ("sys.stdout.buffer.write(b'fsdmkeys\\x02' + bytes(27))", "ends within record 1"),
        ("while True: print('x' * 1000, file=sys.stderr)", "has not ended within"),
        ("time.sleep(1e6)", "has not ended within"),
        ("os.close(1)\ntime.sleep(1e6)", "has not ended within"),
        ("x = bytearray(1 << 30)", "MemoryError"),
        ("open(sys.argv[0] + '.big', 'wb').write(bytes(1 << 25))", "File too large"),
    ],
)
def test_a_poisoned_command_fails_alone(bench: Bench, place: Place, tmp_path: Path, text: str, says: str) -> None:
    hangs = "has not ended" in says
    index = Index(
        name="x",
        command=command(tmp_path, text),
        timeout_s=2.0 if hangs else 60.0,
        max_output_bytes=100_000,
        max_memory_bytes=MEMORY_MIN * 4,
    )
    assert re.search(says, bench.fails(place, index).error)


def test_what_a_command_leaves_behind_is_ended(bench: Bench, layout: Layout, place: Place, tmp_path: Path) -> None:
    text = """
if os.fork() == 0:
    Path(sys.argv[0] + ".pid").write_text(str(os.getpid()))
    while True:
        print("still here", file=sys.stderr, flush=True)
while not Path(sys.argv[0] + ".pid").exists():
    time.sleep(0.01)
os.close(1)
os._exit(0)
"""
    text = text.replace("if os.fork() == 0:\n", "if os.fork() == 0:\n    os.close(1)\n")
    assert bench.build(place, Index(name="x", command=command(tmp_path, text))) is None
    pid = int((tmp_path / "indexer.py.pid").read_text())
    eventually(lambda: _has_ended(pid))


def test_an_indexer_ends_with_its_parent(layout: Layout, place: Place, tmp_path: Path) -> None:
    text = "Path(sys.argv[0] + '.pid').write_text(str(os.getpid()))\ntime.sleep(1e6)"
    index = Index(name="x", command=command(tmp_path, text))
    program = """
import sys
from fsdm.index.building import Building
from fsdm.model.indexes import Index
from fsdm.model.layout import Layout, Place
from fsdm.store.filesystem import FileSystem
index = Index(name="x", command=sys.argv[4])
Building(Layout(sys.argv[1]), FileSystem(), lambda: 0.0).build(Place(*sys.argv[2:4]), index, lambda: None)
"""
    parent = subprocess.Popen([sys.executable, "-c", program, layout.root, *place, index.command or ""])
    path = tmp_path / "indexer.py.pid"
    eventually(lambda: path.exists() and path.read_text())
    pid = int(path.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    eventually(lambda: _has_ended(pid))


def test_an_indexer_has_no_network(bench: Bench, layout: Layout, place: Place, tmp_path: Path) -> None:
    text = """
import socket
names = [name for _, name in socket.if_nameindex()]
print(json.dumps({"key": "|".join(names), "file": "a.bin", "offset": 0}))
"""
    if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no network namespaces here")
    assert bench.build(place, Index(name="x", command=command(tmp_path, text))) is None
    with opened_index(layout, place, "x") as made:
        assert list(made) == [b"lo"]


def test_where_indexers_keep_the_network_that_is_told_once(
    bench: Bench, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, cut = module.run, [True, False, False]
    monkeypatch.setattr(module, "run", lambda *given: run(*given) | {"cut": cut.pop(0)})
    told = []
    for name in ("a", "b", "c"):
        assert bench.build(place, by_four(tmp_path, name=name)) is None
        told.append(len([one for one in caplog.messages if one.startswith("indexers are not cut off the network")]))
    assert told == [0, 1, 1]


def test_failures_are_counted_and_the_rest_between_them_grows(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path
) -> None:
    index = Index(name="x", command=command(tmp_path, "sys.exit(1)"))
    rests = []
    for attempt in range(1, 10):
        failure = bench.fails(place, index)
        assert (failure.attempts, failure.last_at) == (attempt, bench.now)
        assert read_index_failures(layout.path(place)) == [failure]
        assert bench.it.due_at(place, index) == failure.next_attempt_at
        rests.append(failure.next_attempt_at - bench.now)
        bench.now = failure.next_attempt_at
    assert rests == [min(FIRST_REST_S * 2**n, REST_MAX_S) for n in range(9)]
    changed = Index(name="x", command=command(tmp_path, "sys.exit(0)", "other.py"))
    assert bench.it.due_at(place, changed) == 0.0
    assert bench.build(place, changed) is None
    assert read_index_failures(layout.path(place)) == []


def test_an_index_by_another_definition_is_made_anew(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path
) -> None:
    bench.build(place, by_four(tmp_path))
    assert bench.it.due_at(place, by_four(tmp_path, timeout_s=7.0)) is None
    other = by_four(tmp_path, files="b.*")
    assert bench.it.due_at(place, other) == 0.0
    bench.build(place, other)
    with opened_index(layout, place, "four") as made:
        assert list(made) == [b"cccc"]


def test_a_stop_ends_it_at_once_and_leaves_nothing(bench: Bench, layout: Layout, place: Place, tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = f"if os.fork() == 0: Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(1e6)"

    def go_on() -> None:
        if started.exists() and started.read_text():
            raise StoppedError("it is to leave")

    with pytest.raises(StoppedError):
        bench.it.build(place, Index(name="x", command=command(tmp_path, text)), go_on)
    assert os.listdir(layout.trash) == []
    assert can_lock(layout.path(place))
    assert read_index_failures(layout.path(place)) == []
    eventually(lambda: _has_ended(int(started.read_text())), "what the command has begun")


def test_an_index_of_a_ready_that_has_changed_meanwhile_counts_as_absent(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = module.run

    def changed(*given: object) -> object:
        done = run(*given)  # type: ignore[arg-type]
        with open(f"{layout.path(place)}/{READY}", "ab") as ready:
            ready.write(b"\n")
        return done

    monkeypatch.setattr(module, "run", changed)
    assert bench.build(place, by_four(tmp_path)) is None
    assert open_chunk_index(layout.path(place), "four") is None


def _cut(target: Path) -> None:
    os.truncate(target, target.stat().st_size - 1)


def _of_another(target: Path) -> None:
    with target.open("wb") as file:
        write_chunk_index(file, [], [], identity=bytes(32), definition=bytes(32))


@pytest.mark.parametrize("spoil", [_cut, _of_another, os.unlink])
def test_a_process_that_leaves_no_whole_index_of_the_chunk_is_not_believed(
    bench: Bench, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    run = module.run

    def spoilt(*given: object) -> object:
        done = run(*given)  # type: ignore[arg-type]
        (target,) = Path(bench.layout.trash).iterdir()
        spoil(target)
        return done

    monkeypatch.setattr(module, "run", spoilt)
    assert "no whole index" in bench.fails(place, by_four(tmp_path)).error


def test_what_would_take_the_room_that_is_to_stay_free_waits(bench: Bench, place: Place, tmp_path: Path) -> None:
    bench.it.keep_free_bytes = shutil.disk_usage(tmp_path).total
    assert "no room" in bench.fails(place, by_four(tmp_path)).error


def test_nothing_is_made_of_a_chunk_that_is_not_available(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path
) -> None:
    Path(layout.delete_marker(place.chunk_id)).touch()
    assert bench.it.build(place, by_four(tmp_path), lambda: None) is None
    assert not os.path.exists(os.path.dirname(index_path(layout.path(place), "x")))


def test_refs_are_not_kept_from_a_chunk_while_it_is_indexed(
    bench: Bench, layout: Layout, place: Place, tmp_path: Path
) -> None:
    seen = []

    def go_on() -> None:
        with Refs(layout).take(place) or pytest.fail("a reader is refused"):
            seen.append(time.monotonic())

    assert bench.it.build(place, by_four(tmp_path), go_on) is None
    assert seen


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package with an indexer `ours`, whose body this is."""

    def install(body: str) -> None:
        site = tmp_path / "site"
        (site / "ours-1.dist-info").mkdir(parents=True)
        (site / "ours-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1\n")
        (site / "ours-1.dist-info" / "entry_points.txt").write_text("[fsdm.indexers]\nours = ours:keys\n")
        (site / "ours.py").write_text(
            f"import os, socket, sys, time\ndef keys(directory, names):\n{indent(body, '    ')}\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)

    return install


def test_an_entry_point_says_where_keys_stand(
    bench: Bench, layout: Layout, place: Place, plugin: Callable[[str], None]
) -> None:
    plugin("""
print("not in the report")
for name in names:
    yield (directory / name).read_bytes()[:4], name, 0
yield b"long", names[0], 4, 2
yield b"row", names[0], 4, 0, 9
""")
    assert bench.build(place, Index(name="x", indexer="ours", files="*.bin")) is None
    with opened_index(layout, place, "x") as made:
        assert {key: place.document() for key, place in made.items()} == {
            b"aaaa": {"file": "a.bin", "offset": 0, "length": 0},
            b"cccc": {"file": "b.bin", "offset": 0, "length": 0},
            b"long": {"file": "a.bin", "offset": 4, "length": 2},
            b"row": {"file": "a.bin", "row_group": 9, "row": 4},
        }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('no such thing')", "the indexer failed: ValueError\\('no such thing'\\)"),
        ("return None", "the indexer failed: TypeError"),
        ("yield 'key', 'a.bin', 0", "has emitted what is no key: key: must be bytes, not str"),
        ("yield [b'key', 'a.bin', 0]", "the indexer has emitted \\[b'key'"),
        ("yield b'key', 'a.bin'", "the indexer has emitted \\(b'key'"),
        ("yield b'key', 'c.bin', 0", "'c.bin', which it was not given"),
        ("yield b'key', 'a.bin', True", "the offset True"),
        ("n = 0\nwhile True:\n    n += 1\n    yield b'%d' % n, 'a.bin', 0", "more than 100000"),
        ("held = []\nwhile True:\n    held.append(bytearray(1 << 20))", "needs more memory"),
        ("os._exit(0)", "ended with code 0, and no report"),
        ("os.kill(os.getpid(), 11)", "was killed by signal 11"),
        ("os.write(3, b'x' * 70000); os.write(1, b'{}'); os._exit(0)", "and no report|reported too much"),
        ("time.sleep(1e6)", "has not ended within"),
        ("sys.exit(5)", "ended with code 5, and no report"),
    ],
)
def test_a_poisoned_entry_point_fails_alone(
    bench: Bench, place: Place, plugin: Callable[[str], None], body: str, says: str
) -> None:
    plugin(body)
    limits = {"timeout_s": 2.0 if "has not ended" in says else 60.0, "max_output_bytes": 100_000}
    index = Index(name="x", indexer="ours", files="*.bin", max_memory_bytes=MEMORY_MIN * 4, **limits)
    assert re.search(says, bench.fails(place, index).error)


def test_columns_of_parquet_are_keys_by_row_group_and_row(bench: Bench, layout: Layout, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "hash": [bytes([n]) * 32 for n in range(10)],
            "topic0": [None if n % 2 else b"t" for n in range(10)],
            "name": [f"é{n}" for n in range(10)],
            "number": list(range(10)),
        }
    )
    path = tmp_path / "tx.parquet"
    pq.write_table(table, path, row_group_size=4)
    place = put_chunk(layout, files={"tx.parquet": path.read_bytes(), "bad.parquet": b"PAR1 it is not"})
    index = Index(name="x", indexer="parquet:hash,topic0,name", files="tx*.parquet")
    assert bench.build(place, index) is None
    with opened_index(layout, place, "x") as made:
        assert [one.document() for one in made.find(b"\6" * 32)] == [{"file": "tx.parquet", "row_group": 1, "row": 2}]
        assert [(one.row_group, one.offset) for one in made.find(b"t")] == [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0)]
        assert made.find("é9".encode())[0].offset == 1
        assert len(made) == 25
    for indexer, files, says in (
        ("parquet:no", "tx*", "has no column 'no'|No match for FieldRef|cannot be read as Parquet"),
        ("parquet:number", "tx*", "is of int64"),
        ("parquet:hash", "*", "bad.parquet cannot be read as Parquet"),
        ("nobodys", "*", "there is no indexer 'nobodys'"),
        ("parquet:", "*", "there is no indexer 'parquet:'"),
    ):
        failure = bench.fails(place, Index(name="y", indexer=indexer, files=files))
        assert re.search(says, failure.error), failure.error
