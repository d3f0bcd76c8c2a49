"""What an assignment changes: nothing that is so already, and everything that is not."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from fsdm.lists.assignment import Assignment
from fsdm.lists.difference import Comparison, Difference, place
from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import READY, RELEASE, Layout
from fsdm.model.plain_wants import PlainWant
from fsdm.reconcile.delete_brake import MANY_BYTES
from fsdm.store.markers import place_delete, place_want
from tests.support import PATIENCE_S, Source, fsdm, fsdm_json
from tests.support.chunks import a_want, an_id, markers, of_place, put_chunk, put_want, touch_delete

FILES = ExitStack()


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    with FILES:
        yield


def assigned(*chunks: DataChunk) -> Assignment:
    assignment = Assignment(FILES.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115 closed after the test
    for chunk in chunks:
        assignment.add(chunk, chunk.to_json().strip())
    return assignment


def compared(layout: Layout, *chunks: DataChunk) -> Difference:
    comparison = Comparison(layout)
    for chunk in chunks:
        comparison.take(chunk)
    return comparison.close(assigned(*chunks))


def synced(layout: Layout, *chunks: DataChunk) -> None:
    place(layout, compared(layout, *chunks), assigned(*chunks), meant=False)


def test_what_is_here_with_the_same_files_gets_no_marker_whatever_its_url(layout: Layout) -> None:
    there = [put_chunk(layout) for _ in range(3)]
    found = compared(layout, *map(of_place, there))
    assert found == Difference(unchanged=3, here=3)
    synced(layout, *map(of_place, there))
    assert markers(layout) == ([], [])


def test_what_is_missing_is_wanted_with_the_bytes_that_it_declares(layout: Layout) -> None:
    known = of_place(put_chunk(Layout(layout.root + "2")))
    files = {"a": {"url": "http://h/a", "size": 7}, "b": {"url": "http://h/b"}}
    partly = DataChunk(id=an_id(), dataset_id="d" * 64, block_range=(0, 1), files=files)
    found = compared(layout, known, partly)
    assert (found.wanted, found.fetch_bytes, found.undeclared) == ([known.id, partly.id], 107, 1)


def test_what_is_not_listed_is_deleted_be_it_here_or_only_wanted(layout: Layout) -> None:
    kept, gone = put_chunk(layout), put_chunk(layout)
    wanted = of_place(put_chunk(Layout(layout.root + "2")))
    place_want(layout, wanted)
    found = compared(layout, of_place(kept))
    assert found.deleted == sorted([gone.chunk_id, wanted.id])
    assert (found.here, found.going, found.freed_bytes) == (2, 1, 100)
    synced(layout, of_place(kept))
    assert markers(layout) == ([], sorted([gone.chunk_id, wanted.id]))


def test_a_delete_that_waits_is_withdrawn_for_a_chunk_that_is_listed(layout: Layout) -> None:
    there = put_chunk(layout)
    place_delete(layout, there.chunk_id)
    found = compared(layout, of_place(there))
    assert (found.wanted, found.here, found.fetch_bytes) == ([there.chunk_id], 0, 0)
    synced(layout, of_place(there))
    assert markers(layout) == ([there.chunk_id], [])


def test_a_line_that_is_plain_is_compared_by_itself_only_where_there_is_nothing_else_of_it(layout: Layout) -> None:
    fresh = of_place(put_chunk(Layout(layout.root + "2")))
    here, deleted, wanted = of_place(put_chunk(layout)), of_place(put_chunk(layout)), a_want()
    place_delete(layout, deleted.id)
    place_want(layout, wanted)
    lines = [one.to_json().strip() for one in (here, fresh, deleted, wanted, fresh, a_want(files={"a": "http://h/a"}))]
    glanced: list[str] = []
    found = []
    for at_a_glance in (True, False):
        comparison = Comparison(layout)

        def glance(want: PlainWant, comparison: Comparison = comparison) -> bool:
            taken = comparison.takes_plain(want)
            glanced.extend([want.id] * taken)
            return taken

        file = FILES.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 closed after the test
        assignment = Assignment(file, comparison.take, glance if at_a_glance else None)
        for line in lines:
            assignment.take(line, "here")
        found.append(comparison.close(assignment))
    assert glanced == [fresh.id]
    assert found[0] == found[1]
    assert (found[0].wanted[0], found[0].unchanged, len(found[0].wanted)) == (fresh.id, 2, 3)


def test_a_want_is_placed_as_its_line_stands_in_the_list(layout: Layout) -> None:
    assignment = Assignment(FILES.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115 closed after the test
    chunk = a_want()
    line = b'{ "note": [1], ' + chunk.to_json().strip()[1:]
    assignment.take(line, "here")
    place(layout, Difference(wanted=[chunk.id]), assignment, meant=False)
    assert Path(layout.want_marker(chunk.id)).read_bytes() == line + b"\n"


def test_a_delete_is_placed_again_only_beside_a_want(layout: Layout) -> None:
    one, other = put_chunk(layout), put_chunk(layout)
    for there in (one, other):
        touch_delete(Path(layout.root), there.chunk_id)
    put_want(Path(layout.root), of_place(other))
    found = compared(layout)
    assert (found.deleted, found.unchanged) == ([other.chunk_id], 1)


def test_an_equal_want_is_left_alone_and_another_is_replaced(layout: Layout) -> None:
    chunk = of_place(put_chunk(Layout(layout.root + "2")))
    place_want(layout, chunk)
    before = os.stat(layout.want_marker(chunk.id)).st_ino
    assert compared(layout, chunk) == Difference(unchanged=1)
    synced(layout, chunk)
    assert os.stat(layout.want_marker(chunk.id)).st_ino == before
    moved = chunk.model_copy(update={"note": "new"})
    assert compared(layout, moved).wanted == [chunk.id]


@pytest.mark.parametrize("text", [b"", b"{", b"[]"])
def test_a_want_that_cannot_be_read_is_replaced(layout: Layout, text: bytes) -> None:
    chunk = of_place(put_chunk(Layout(layout.root + "2")))
    Path(layout.want_marker(chunk.id)).write_bytes(text)
    assert compared(layout, chunk).wanted == [chunk.id]


def test_a_want_that_would_replace_what_is_here_overrules_the_list_no_more(layout: Layout) -> None:
    there = put_chunk(layout)
    place_want(layout, of_place(there, size=99))
    found = compared(layout, of_place(there))
    assert (found.wanted, found.replaced, found.fetch_bytes) == ([there.chunk_id], 0, 0)


@pytest.mark.parametrize("file", [{"size": 99}, {"blake3": "0" * 64}])
def test_a_chunk_that_is_here_with_other_files_is_replaced(layout: Layout, file: dict[str, object]) -> None:
    found = compared(layout, of_place(put_chunk(layout), **file))
    assert (found.replaced, found.going, len(found.wanted)) == (1, 0, 1)
    assert found.fetch_bytes > 0


def test_a_digest_that_ready_lacks_is_left_to_the_reconciler(layout: Layout) -> None:
    there = put_chunk(layout)
    found = compared(layout, of_place(there, sha256="0" * 64))
    assert (found.wanted, found.replaced, found.fetch_bytes) == ([there.chunk_id], 0, 0)


def test_deletes_tell_what_would_go_and_each_id_counts_once(layout: Layout) -> None:
    there, going = put_chunk(layout), put_chunk(layout)
    place_delete(layout, going.chunk_id)
    unknown = an_id()
    comparison = Comparison(layout)
    found = comparison.with_deletes([there.chunk_id, there.chunk_id, going.chunk_id, unknown])
    assert (found.deleted, found.going, found.here, found.freed_bytes) == ([there.chunk_id, unknown], 1, 1, 100)
    assert [comparison.knows(one) for one in (there.chunk_id, going.chunk_id, unknown)] == [True, True, False]


def test_a_directory_without_want_is_refused_with_a_hint(layout: Layout) -> None:
    os.rmdir(layout.want)
    with pytest.raises(DataDirectoryError, match="want cannot be listed") as e:
        Comparison(layout)
    assert "fsdm run" in e.value.hint


# ---------------------------------------------------------------------------------------------------------- fsdm sync


def asked(layout: Layout) -> tuple[list[str], list[str]]:
    """The markers that stand; a release beside them is none."""
    wants, deletes = markers(layout)
    return wants, [name for name in deletes if name != RELEASE]


def listed(tmp_path: Path, chunks: Iterable[DataChunk]) -> Path:
    path = tmp_path / "list.jsonl"
    path.write_bytes(b"".join(chunk.to_json() for chunk in chunks))
    return path


def test_after_a_sync_exactly_the_list_is_here(data_dir: Path, source: Source, tmp_path: Path) -> None:
    chunks = [source.chunk(start=n, end=n + 1) for n in range(8)]
    with DataManager(data_dir) as dm:
        for chunk in chunks[:4]:
            dm.download_chunk(chunk)
        dm.wait_converged(PATIENCE_S)
        asked = dict(source.asked)
        done = fsdm_json("sync", "-d", data_dir, listed(tmp_path, chunks[1:]))
        assert (done["wanted"], done["deleted"]) == ([chunk.id for chunk in chunks[4:]], [chunks[0].id])
        assert (done["unchanged"], done["fetch_bytes"]) == (3, 8000)
        dm.wait_converged(PATIENCE_S)
        assert dm.list_chunks() == [chunk.id for chunk in chunks[1:]]
        again = fsdm("sync", "-d", data_dir, source.put("/list", listed(tmp_path, chunks[1:]).read_bytes()))
        assert again.stdout == "0 wanted (0 bytes to fetch)\n0 deleted (0 bytes)\n7 unchanged\n"
        assert {path: count for path, count in source.asked.items() if path in asked} == asked


def test_a_dry_run_says_what_a_sync_would_do_and_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    there = [put_chunk(layout) for _ in range(4)]
    missing = of_place(put_chunk(Layout(layout.root + "2")))
    path = listed(tmp_path, [*map(of_place, there[:2]), missing])
    done = fsdm("sync", "-d", layout.root, path, "--dry-run")
    assert done.stdout == "1 would be wanted (100 bytes to fetch)\n2 would be deleted (200 bytes)\n2 unchanged\n"
    assert "would be braked: 2 of the 4 chunks" in done.stderr
    assert "at least 0 s, at 50.0 MB a second, which is assumed\n" in done.stderr
    assert done.returncode == 0
    assert fsdm_json("sync", "-d", layout.root, path, "--dry-run")["braked"]
    assert markers(layout) == ([], [])


def test_a_list_that_has_not_as_many_wants_as_expected_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    path = listed(tmp_path, [a_want(), a_want()])
    refused = fsdm("sync", "-d", layout.root, path, "--expect", "3")
    assert refused.returncode == 2
    assert "2 wants came, and it has 3" in refused.stderr
    assert asked(layout) == ([], [])
    assert os.listdir(layout.want) == []
    assert fsdm("sync", "-d", layout.root, path, "--expect", "2").returncode == 0
    assert len(os.listdir(layout.want)) == 2


def test_a_sync_that_would_remove_too_much_is_braked_until_it_is_meant(layout: Layout, tmp_path: Path) -> None:
    there = [put_chunk(layout) for _ in range(8)]
    path = listed(tmp_path, map(of_place, there[3:]))
    done = fsdm("sync", "-d", layout.root, path)
    assert done.returncode == 8
    assert "3 of the 8 chunks that are here would go, which is more than 25%" in done.stderr
    assert "--yes" in done.stderr
    assert asked(layout) == ([], [])
    for argument in (["--yes"], ["--brake", "off"], ["--brake", "38%"]):
        assert fsdm("sync", "-d", layout.root, path, *argument).returncode == 0
        assert asked(layout) == ([], sorted(one.chunk_id for one in there[:3]))
        for one in there[:3]:
            os.unlink(layout.delete_marker(one.chunk_id))


def test_what_would_be_replaced_is_braked_as_what_would_be_deleted(layout: Layout, tmp_path: Path) -> None:
    path = listed(tmp_path, [of_place(put_chunk(layout), size=7) for _ in range(3)])
    assert fsdm("sync", "-d", layout.root, path).returncode == 8
    assert asked(layout) == ([], [])


def test_a_list_with_a_broken_line_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    there = put_chunk(layout)
    path = listed(tmp_path, [of_place(there), of_place(put_chunk(Layout(layout.root + "2")))])
    path.write_bytes(path.read_bytes()[:-5])
    done = fsdm("sync", "-d", layout.root, path, "--yes")
    assert done.returncode == 2
    assert f"{path}:2: " in done.stderr
    assert "nothing was changed" in done.stderr
    assert asked(layout) == ([], [])


def test_an_empty_list_is_an_error_unless_all_is_to_go(layout: Layout, tmp_path: Path) -> None:
    there = put_chunk(layout)
    done = fsdm("sync", "-d", layout.root, "-", "--brake", "off")
    assert (done.returncode, "the list is empty" in done.stderr) == (2, True)
    assert asked(layout) == ([], [])
    assert fsdm("sync", "-d", layout.root, "-", "--yes").returncode == 0
    assert asked(layout) == ([], [there.chunk_id])


def test_a_list_is_taken_from_standard_input(layout: Layout, tmp_path: Path) -> None:
    chunk = of_place(put_chunk(Layout(layout.root + "2")))
    assert fsdm("sync", "-d", layout.root, "-", stdin=chunk.to_json()).returncode == 0
    assert asked(layout) == ([chunk.id], [])


def test_bytes_are_counted_as_well_as_chunks(layout: Layout, tmp_path: Path) -> None:
    """Of eight chunks one would go, and with it more than a quarter of the bytes."""
    there = [put_chunk(layout, start=n, end=n + 1) for n in range(8)]
    for number, one in enumerate(there):
        ready = Path(layout.path(one), READY)
        ready.write_text(ready.read_text().replace('"size":100', f'"size":{MANY_BYTES // (1 if number == 0 else 3)}'))
    path = listed(tmp_path, [of_place(one, size=MANY_BYTES // 3) for one in there[1:]])
    done = fsdm("sync", "-d", layout.root, path)
    assert done.returncode == 8
    told = "1 of the 8 chunks that are here would go, with 100.0 GB of 333.3 GB, which is more than 25%"
    assert told in done.stderr
    assert fsdm("sync", "-d", layout.root, path, "--brake", "31%").returncode == 0


def test_a_few_deletes_are_meant_and_many_are_braked(layout: Layout) -> None:
    ids = [put_chunk(layout).chunk_id for _ in range(20)]
    assert fsdm("delete", "-d", layout.root, *ids[:9]).returncode == 0
    done = fsdm("delete", "-d", layout.root, *ids[9:19])
    assert (done.returncode, "10 of the 11 chunks" in done.stderr) == (8, True)
    assert asked(layout) == ([], sorted(ids[:9]))
    for argument in (["--yes"], ["--brake", "off"]):
        assert fsdm("delete", "-d", layout.root, *ids[9:19], *argument).returncode == 0
        assert asked(layout) == ([], sorted(ids[:19]))
        for one in ids[9:19]:
            os.unlink(layout.delete_marker(one))


def test_deletes_of_what_is_not_here_are_not_braked_whatever_their_number(layout: Layout) -> None:
    put_chunk(layout)
    assert fsdm("delete", "-d", layout.root, *(an_id() for _ in range(30))).returncode == 0


def test_a_dry_run_of_a_delete_tells_what_would_go_and_who_is_unknown(layout: Layout) -> None:
    here, unknown = put_chunk(layout).chunk_id, an_id()
    done = fsdm("delete", "-d", layout.root, here, unknown, "--dry-run")
    assert done.stdout == f"{here}\twould be deleted\n{unknown}\tunknown\n"
    assert done.stderr == "1 of 1 chunks would go (100 bytes)\n"
    told = fsdm_json("delete", "-d", layout.root, here, unknown, "--dry-run")
    assert (told["going"], told["freed_bytes"], told["unknown"]) == (1, 100, [unknown])
    assert asked(layout) == ([], [])
