"""A report: nothing is told to be here that is not, and a node keeps its name."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdm import Client, DataChunk
from fsdm.fleet.report import Report, Reporter, name_of
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.layout import Layout
from fsdm.store.json_files import read_manifest
from tests.support import ran
from tests.support.chunks import a_want, an_id, of_place, put_chunk, put_failure, touch_delete

SHA = "a" * 64


class Chunks(dict[str, DataChunk]):
    """A list of chunks."""

    def __init__(self, chunks: list[DataChunk]) -> None:
        super().__init__((chunk.id, chunk) for chunk in chunks)

    def ids(self) -> Iterator[str]:
        return iter(self)

    def chunk(self, chunk_id: str) -> DataChunk:
        return self[chunk_id]


@pytest.fixture
def client(layout: Layout) -> Iterator[Client]:
    with Client(layout.root) as client:
        yield client


def test_chunk_is_here_only_with_the_files_of_the_list_and_while_it_is_available(client: Client) -> None:
    here, other, deleted = (put_chunk(client.layout, start=n, end=n + 1) for n in range(3))
    extra = put_chunk(client.layout, start=9, end=10)
    absent = a_want()
    touch_delete(Path(client.layout.root), deleted.chunk_id)
    os.unlink(f"{client.layout.path(put := put_chunk(client.layout, start=5, end=6))}/READY")
    wanted = [of_place(here), of_place(other, size=101), of_place(deleted), absent, of_place(put)]
    found = Reporter(client).report(Chunks(wanted), SHA, 7.0)
    assert found.missing == (other.chunk_id, deleted.chunk_id, absent.id, put.chunk_id)
    assert found.extra == (extra.chunk_id,)
    assert (found.at, found.applied, found.bytes, found.braked, found.failing) == (7.0, SHA, 300, False, ())


def test_report_tells_of_the_brake_and_of_the_chunks_of_the_list_that_fail(client: Client, data_dir: Path) -> None:
    wanted = [a_want(), a_want()]
    for chunk_id in (wanted[1].id, an_id()):
        put_failure(data_dir, chunk_id, kind="transfer")
    (data_dir / "BRAKE").write_text("{}")
    found = Reporter(client).report(Chunks(wanted), SHA, 7.0)
    assert found.failing == (wanted[1].id,)
    assert found.braked
    assert Report.parse(found.to_json()) == found


def test_first_name_is_kept_and_another_one_is_refused(layout: Layout) -> None:
    with pytest.raises(InvalidInputError, match="no name yet"):
        name_of(layout, None)
    assert name_of(layout, "a1") == name_of(layout, None) == name_of(layout, "a1") == "a1"
    assert Path(layout.node_id).read_text() == "a1\n"
    with pytest.raises(InvalidInputError, match="is that of 'a1'") as e:
        name_of(layout, "a2")
    assert layout.node_id in e.value.hint
    assert name_of(layout, None) == "a1"


def test_report_reads_no_ready_again_that_has_not_changed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    here, extra = put_chunk(client.layout), put_chunk(client.layout, start=5, end=6)
    reporter, wanted = Reporter(client), Chunks([of_place(here)])
    first, read = reporter.report(wanted, SHA, 7.0), list[str]()
    monkeypatch.setattr("fsdm.fleet.report.read_manifest", lambda path: read.append(path) or read_manifest(path))
    assert reporter.report(wanted, SHA, 7.0) == first
    assert read == []
    ready = Path(client.layout.path(here), "READY")
    ready.write_text(ready.read_text().replace('"size":100', '"size":1000'))
    assert reporter.report(wanted, SHA, 7.0).bytes == 1100
    assert read == [str(ready.parent)]
    assert reporter.report(Chunks([of_place(extra)]), "b" * 64, 7.0).missing == ()


def test_name_that_is_made_is_one_for_all_who_come_at_once(layout: Layout) -> None:
    barrier = threading.Barrier(8)

    def name(_: int) -> str:
        barrier.wait()
        return name_of(layout, None, make=True)

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(name, range(8)))
    assert names == {name_of(layout, None)}
    assert [one for one in os.listdir(layout.root) if one.startswith("node-id")] == ["node-id"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".a", "a b", "a\n", "\x1b[2J", "a" * 129])
def test_name_that_is_none_is_refused_and_not_kept(layout: Layout, name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name of a node"):
        name_of(layout, name)
    assert not os.path.exists(layout.node_id)
    if name.strip() not in {"a", ""}:
        Path(layout.node_id).write_text(name)
        with pytest.raises(InvalidInputError, match="is no name of a node"):
            name_of(layout, None)


def test_name_that_cannot_be_written_is_an_error_of_the_directory(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsdm.fleet.report.FileSystem.write", refuse)
    with pytest.raises(DataDirectoryError, match="node-id: Permission denied"):
        name_of(layout, "a1")


def test_report_needs_nothing_of_what_places(layout: Layout) -> None:
    program = "import sys; sys.modules['numpy'] = None; from fsdm.cli.main import main; sys.exit(main(sys.argv[1:]))"
    (Path(layout.root) / "list").write_text('{"end": 0}\n')
    done = ran(
        sys.executable, "-c", program, "report", "-d", layout.root, f"{layout.root}/list", "--name", "a", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "a"
