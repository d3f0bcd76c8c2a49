"""Publishing: what was placed is read again as it was, lists are those of `fsdm sync`, and one of two placers wins."""

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fsdm.fleet.inventory import Presence
from fsdm.fleet.placing import Bounds
from fsdm.fleet.publishing import POINTER, read_pointer
from fsdm.fleet.round import Options, Round
from fsdm.fleet.shelf import KEPT_S, Directory
from fsdm.lists.assignment import read_assignment
from fsdm.model.errors import BrakedError, DataDirectoryError, InvalidInputError, PublishedMeanwhileError
from tests.support.chunks import a_want, an_id
from tests.support.placed import DATASETS, NOW, Place

FILES = {"a.parquet": {"url": "http://h/a", "size": 10**6}}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_lists_are_those_that_sync_takes_and_have_each_chunk_three_times(place: Place) -> None:
    place.publish()
    found = []
    for said in place.pointer()["lists"].values():
        with read_assignment(str(place.fleet / "lists" / f"{said['sha256']}.jsonl.gz")) as assignment:
            found += [chunk.id for chunk in assignment]
            assert len(assignment) == said["chunks"]
            assert said["bytes"] == sum(file.size for chunk in assignment for file in chunk.files.values())
            assert all(assignment.chunk(i) == want for want in place.wants.values() if (i := want.id) in assignment)
        assert said["since"] == NOW
        text = gzip.decompress((place.fleet / "lists" / f"{said['sha256']}.jsonl.gz").read_bytes())
        assert hashlib.sha256(text).hexdigest() == said["sha256"]
    assert sorted(found) == sorted(3 * [want.id for want in place.wants.values()])


def test_what_is_published_is_read_again_as_it_was_placed(place: Place) -> None:
    one = place.publish()
    again = place.read()
    assert np.array_equal(again.before.planned, one.placement.listed)
    assert again.before.held.size == again.before.leaving.size == 0
    assert again.before.listed.all()
    assert again.publish(place) is None
    place.report_all()
    place.workers[0]["draining"] = True
    drained = place.publish()
    again = place.read()
    assert drained.placement.leaving.size > 0
    assert np.array_equal(again.before.planned, drained.placement.listed)
    assert np.array_equal(again.before.leaving, drained.placement.leaving)


def test_list_that_stays_as_it_is_is_not_written_again_and_one_whose_wants_change_is(place: Place) -> None:
    place.publish()
    place.report_all()
    asked: list[str] = []
    read = place.documents
    place.documents = lambda ids: (asked.append(one) or next(read([one])) for one in ids)  # type: ignore[method-assign]
    was = place.pointer()
    place.publish(NOW + 1)
    assert (asked, place.pointer()["lists"]) == ([], was["lists"])
    assert place.pointer()["routes"] != was["routes"]
    (place.fleet / "lists" / f"{was['lists']['w2']['sha256']}.jsonl.gz").unlink()
    place.publish(NOW + 1)
    assert len(asked) == len(place.ids("w2")) == was["lists"]["w2"]["chunks"]
    moved = place.wants[3].files["a.parquet"].model_copy(update={"url": "http://other/3"})
    place.wants[3] = place.wants[3].model_copy(update={"files": {"a.parquet": moved}})
    place.publish(NOW + 2)
    changed = {name for name, said in place.pointer()["lists"].items() if said != was["lists"][name]}
    assert changed == {name for name in was["lists"] if place.wants[3].id in place.ids(name)}
    assert len(changed) == 3


def test_routes_name_confirmed_copies_alone_in_the_order_of_blocks(place: Place) -> None:
    place.publish()
    assert {tuple(route["workers"]) for route in place.routes()} == {()}
    assert {len(route["coming"]) for route in place.routes()} == {3}
    missing = place.ids("w1")[0]
    for worker in place.workers[:3]:
        place.report(worker["name"], missing=[missing] if worker["name"] == "w1" else [])
    assert place.publish(NOW + 1).now == NOW + 1
    assert place.pointer()["number"] == 2
    listed = {name: set(place.ids(name)) for name in place.pointer()["lists"]}
    routes = place.routes()
    for route in routes:
        holders = {name for name in ("w0", "w1", "w2") if route["id"] in listed[name]}
        assert set(route["workers"]) == holders - ({"w1"} if route["id"] == missing else set())
        assert set(route["workers"] + route.get("coming", [])) == {
            name for name in listed if route["id"] in listed[name]
        }
    places = [(route["dataset_id"], route["start"], route["end"]) for route in routes]
    assert places == sorted((want.dataset_id, n, n + 1) for n, want in place.wants.items())


def test_of_two_placers_that_began_with_the_same_one_fails_and_changes_nothing(place: Place) -> None:
    place.publish()
    place.report_all()
    place.workers.append({"name": "w6", "capacity": "500M"})
    first = place.read(NOW + 1)
    place.workers[-1]["name"] = "w7"
    second = place.read(NOW + 1)
    assert first.publish(place).number == 2
    text = (place.fleet / POINTER).read_bytes()
    with pytest.raises(PublishedMeanwhileError):
        second.publish(place)
    assert (place.fleet / POINTER).read_bytes() == text
    assert "w6" in place.pointer()["lists"]
    assert place.read(NOW + 1).publish(place).number == 3  # who reads again may go on


def test_pointer_is_written_after_all_that_it_names(place: Place) -> None:
    one = place.read()
    put: list[str] = []

    class Noting(Directory):
        def put(self, name: str, data: bytes) -> None:
            if name == POINTER:
                assert {f"lists/{said['sha256']}.jsonl.gz" for said in json.loads(data)["lists"].values()} < set(put)
                assert f"routes/{json.loads(data)['routes']}.jsonl.gz" in put
            put.append(name)
            super().put(name, data)

    object.__setattr__(one, "shelf", Noting(str(place.fleet)))
    one.publish(place)
    assert put[-1] == POINTER


def test_list_that_is_unchanged_is_not_written_again(place: Place) -> None:
    place.publish()
    place.report_all()
    stamps = {path: path.stat().st_ino for path in place.fleet.glob("lists/*")}
    place.publish(NOW + 1)
    assert place.pointer()["number"] == 2  # for all is confirmed
    assert {path: path.stat().st_ino for path in place.fleet.glob("lists/*")} == stamps


def test_want_with_other_files_is_in_new_lists(place: Place) -> None:
    place.publish()
    was = {name: said["sha256"] for name, said in place.pointer()["lists"].items()}
    place.wants[7] = place.wants[7].model_copy(update={"files": place.wants[8].files})
    place.publish(NOW + 1)
    now = {name: said["sha256"] for name, said in place.pointer()["lists"].items()}
    changed = {name for name in now if now[name] != was[name]}
    assert changed == {name for name in now if place.wants[7].id in place.ids(name)}


def test_lists_that_are_named_or_applied_are_kept_and_others_go_after_a_day(place: Place) -> None:
    place.publish()
    place.report_all()
    first = {said["sha256"] for said in place.pointer()["lists"].values()}
    for number in range(200, 260):
        place.wants[number] = place.wants[0].model_copy(
            update={"id": an_id(number), "block_range": range(number, number + 1)}
        )
    place.publish(NOW + 1)
    place.report("w0", NOW + 1)
    applied = {json.loads(path.read_bytes())["applied"] for path in place.path.glob("reports/*")}
    del place.wants[259]
    place.publish(NOW + 2)
    second = {said["sha256"] for said in place.pointer()["lists"].values()}
    for path in place.fleet.glob("lists/*"):
        os.utime(path, (NOW, NOW))
    del place.wants[258]
    place.publish(NOW + KEPT_S + 3, silent_s=1e9, grace_s=1e9)
    names = {path.name.partition(".")[0] for path in place.fleet.glob("lists/*")}
    assert names == {said["sha256"] for said in place.pointer()["lists"].values()} | second | applied
    assert first - names == {*first} - applied - second


def test_worker_that_has_applied_an_older_list_holds_what_was_in_that(place: Place) -> None:
    place.publish()
    place.report_all()
    had = set(place.ids("w0"))
    for number in range(200, 230):
        place.wants[number] = place.wants[0].model_copy(
            update={"id": an_id(number), "block_range": range(number, number + 1)}
        )
    place.publish(NOW + 1)
    held = place.read().before.held
    assert held.size == 600
    one = place.read()
    assert {one.wants.id(int(copy) // 6) for copy in held if copy % 6 == 0} == had


def test_copy_that_comes_back_is_confirmed_by_a_report_of_the_list_that_it_came_back_to(place: Place) -> None:
    place.wants = {0: place.wants[0]}
    place.workers = place.workers[:2]
    place.publish(otherwise=2)
    place.report_all(NOW + 1)
    place.publish(NOW + 2, otherwise=1)
    [(keeps, _), (loses, _)] = sorted(place.pointer()["lists"].items(), key=lambda item: -item[1]["chunks"])
    place.workers[int(keeps[1])]["draining"] = True
    place.publish(NOW + 3, otherwise=1)  # what has been dropped comes back, by a report from before
    assert len(place.ids(loses)) == 1
    place.report(keeps, NOW + 4)
    for later in (4, 5):  # the first report is of a list of the same text, but not of this one
        place.publish(NOW + later, otherwise=1)
        assert (len(place.ids(keeps)), place.routes()[0]["workers"]) == (1, [keeps])
    place.report(loses, NOW + 5, applied=None, extra=[place.wants[0].id])  # it has not applied its list yet
    place.publish(NOW + 6, otherwise=1)
    assert len(place.ids(keeps)) == 1
    place.report(loses, NOW + 6)
    place.publish(NOW + 6, otherwise=1)
    assert (len(place.ids(keeps)), place.routes()[0]["workers"]) == (0, [loses])


def test_worker_that_drains_loses_a_fifth_within_the_time_in_which_its_own_brake_counts(place: Place) -> None:
    place.wants |= {number: a_want(id=an_id(number), files=FILES) for number in range(200, 600)}
    place.workers = [{"name": f"w{number}", "capacity": "9G"} for number in range(4)]
    place.publish(otherwise=2)
    place.report_all()
    place.publish(NOW + 1, otherwise=2)
    place.workers[0]["draining"] = True
    had = len(place.ids("w0"))
    lost = []
    for number in range(9):
        now = NOW + 280 * number
        place.report_all(now)
        place.publish(now, otherwise=2)
        lost.append((now, had - len(place.ids("w0"))))
        had -= lost[-1][1]
        window = sum(copies for when, copies in lost if when > now - 600)
        assert window <= max(50, 0.25 * (had + window)), f"after {number} rounds its own brake holds them back"
    assert 0 < had < 250


def test_chunks_that_a_new_worker_brings_count_at_once(place: Place) -> None:
    brought = [want.id for want in list(place.wants.values())[:40]]
    (place.path / "reports" / "w3.json").write_text(json.dumps({"at": NOW, "applied": None, "extra": brought}))
    one = place.publish()
    assert set(brought) <= set(place.ids("w3"))
    assert one.summary().added["missing"].copies == 560


def test_pointer_that_is_lost_is_made_anew_from_reports_and_lists(place: Place) -> None:
    place.publish()
    place.report_all()
    place.publish(NOW + 1)
    was = {name: set(place.ids(name)) for name in place.pointer()["lists"]}
    (place.fleet / POINTER).unlink()
    one = place.publish(NOW + 2)
    assert one.placement.added.size == 0
    assert {name: set(place.ids(name)) for name in place.pointer()["lists"]} == was


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda fleet: (fleet / POINTER).write_text("{"), "placement.json cannot be taken: Invalid JSON"),
        (lambda fleet: (fleet / POINTER).write_text('{"format": 2}'), "placement.json cannot be taken: format"),
        (lambda fleet: next(fleet.glob("routes/*")).unlink(), "it is missing, and the pointer names it"),
        (
            lambda fleet: next(fleet.glob("routes/*")).write_bytes(b"no gzip"),
            "routes/.* cannot be taken: Not a gzipped",
        ),
        (lambda fleet: cut(next(fleet.glob("routes/*"))), "routes/.* cannot be taken: Compressed file ended"),
        (lambda fleet: next(fleet.glob("routes/*")).write_bytes(gzip.compress(b"{}\n")), "routes/.*: a line is no"),
    ],
)
def test_what_is_published_and_broken_changes_nothing(place: Place, damage: Callable, says: str) -> None:
    place.publish()
    damage(place.fleet)
    text = (place.fleet / POINTER).read_bytes()
    with pytest.raises(DataDirectoryError, match=says):
        place.read()
    assert (place.fleet / POINTER).read_bytes() == text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_silent_workers_are_away_then_gone_and_a_broken_report_makes_none_gone(place: Place) -> None:
    place.publish()
    place.report_all(NOW)
    place.report("w1", NOW + 500)
    (place.path / "reports" / "w2.json").write_text("{")
    one = place.read(NOW + 500)
    assert [worker.presence for worker in one.workers.all] == [1, 0, 1, 1, 1, 1]
    assert list(one.broken) == ["w2"]
    with pytest.raises(BrakedError):
        place.read(NOW + 700)
    one = place.read(NOW + 700, bounds=Bounds(brake=None))
    assert [worker.presence for worker in one.workers.all] == [2, 1, 1, 2, 2, 2]


def test_worker_that_never_reports_is_gone_when_the_grace_is_over(place: Place) -> None:
    place.publish()
    assert place.read(NOW + 100).workers.all[0].presence == Presence.LIVE
    assert place.read(NOW + 500).workers.all[0].presence == Presence.AWAY
    for worker in place.workers[1:]:
        place.report(worker["name"], NOW + 700)
    place.publish(NOW + 700)
    assert sorted(place.pointer()["lists"]) == ["w1", "w2", "w3", "w4", "w5"]
    assert place.pointer()["lists"]["w1"]["since"] == NOW


def test_worker_that_is_no_longer_listed_is_gone_and_counted_by_the_brake(place: Place) -> None:
    place.publish()
    place.report_all()
    del place.workers[4:]
    with pytest.raises(BrakedError, match="are on workers that are gone"):
        place.read()
    place.publish(bounds=Bounds(brake=None))
    assert sorted(place.pointer()["lists"]) == ["w0", "w1", "w2", "w3"]


def test_reports_of_others_and_files_that_are_none_do_no_harm(place: Place) -> None:
    place.publish()
    place.report_all()
    (place.path / "reports" / "stranger.json").write_text(json.dumps({"at": NOW}))
    (place.path / "reports" / ".w0.json").write_text("{")
    (place.path / "reports" / "notes.txt").write_text("{")
    (place.path / "reports" / "w5.json").unlink()
    (place.path / "reports" / "w5.json").mkdir()
    one = place.read()
    assert one.broken == {"w5": "it is not a file"}
    assert one.before.held.size == 600 - len(place.ids("w5"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "workers:1: Invalid JSON"),
        ('{"name": "../x", "capacity": 1}', "workers:1: name: "),
        ('{"name": "a"}', "workers:1: capacity: "),
        ('{"name": "a", "capacity": "10 X"}', "workers:1: capacity: '10 X' is no size"),
        ('{"name": "a", "capacity": 0}', "workers:1: capacity: "),
        ('{"name": "a", "capacity": 1, "weight": -1}', "workers:1: weight: "),
        ('{"name": "a", "capacity": 1, "draining": "no"}', "workers:1: draining: "),
        ('{"name": "a", "capacity": 1}\n{"name": "a", "capacity": 1}', "name: there are two workers called a"),
        ("", "there are no workers"),
    ],
)
def test_list_of_workers_that_cannot_be_taken_is_an_error_that_names_the_line(
    place: Place, line: str, says: str
) -> None:
    (place.path / "workers").write_text(line)
    how = Options(bounds=Bounds())
    with pytest.raises(InvalidInputError, match=says):
        Round.read(how.wants(), str(place.path / "workers"), None, Directory(str(place.fleet)), how, NOW)


def test_chunk_of_no_declared_size_is_an_error_unless_one_is_assumed(place: Place) -> None:
    place.wants[3] = a_want(id=an_id(3), files={"x": "http://h/x"})
    with pytest.raises(InvalidInputError, match="'x' declares no size"):
        place.read()
    one = place.read(assumed_bytes=7)
    assert one.chunks.size.min() == 7


@pytest.mark.parametrize(
    ("size", "says"), [(1 << 63, f"{an_id(3)}: its files have more than"), (1 << 59, "all copies together have more")]
)
def test_sizes_that_cannot_be_counted_are_an_error(place: Place, size: int, says: str) -> None:
    place.wants[3] = a_want(id=an_id(3), files={"x": {"url": "http://h/x", "size": size}})
    with pytest.raises(InvalidInputError, match=says):
        place.read()


def test_datasets_may_have_other_numbers_of_copies(place: Place) -> None:
    place.publish(replicas={DATASETS[1]: 1}, otherwise=2)
    found = {len(route["coming"]): route["dataset_id"] for route in place.routes()}
    assert found == {2: DATASETS[0], 1: DATASETS[1]}
    assert read_pointer(Directory(str(place.fleet))).lists["w0"].chunks == len(place.ids("w0"))
