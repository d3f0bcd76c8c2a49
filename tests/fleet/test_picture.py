"""The picture of a placement: every worker, every range and every move is in it, and nothing that it names can run."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from fsdm.fleet.picture.page import LISTED, html
from fsdm.fleet.picture.ranges import MEANINGS, PARTS, Part, parts_of
from fsdm.fleet.placing import Bounds
from fsdm.fleet.round import Options, Round
from fsdm.fleet.shelf import Directory
from fsdm.fleet.wants import Wants
from fsdm.model.documents import DataChunk
from tests.support.chunks import a_want, an_id

NOW = 1_000_000.0


def a_chunk(number: int, dataset: str = "d" * 64, size: int = 10**6) -> DataChunk:
    files = {"a": {"url": "http://h/a", "size": size}}
    return a_want(id=an_id(number), dataset_id=dataset, block_range=(number, number + 1), files=files)


def a_round(path: Path, count: int = 50, workers: int = 5, *, capacity: str = "1G", **more: str) -> Round:
    lines = [{"name": f"w{number}", "capacity": capacity, "zone": f"z{number % 3}"} for number in range(workers)]
    (path / "workers").write_text("".join(json.dumps(line | more) + "\n" for line in lines))
    (path / "reports").mkdir(exist_ok=True)
    options = Options(bounds=Bounds(brake=None))
    wants = options.wants()
    for number in range(count):
        wants.add(a_chunk(number))
    return Round.read(wants, str(path / "workers"), str(path / "reports"), Directory(str(path / "to")), options, NOW)


def parts(one: Round) -> list[Part]:
    [(dataset, found)] = parts_of(one.wants, one.chunks, one.workers, one.placement)
    assert dataset == "d" * 64
    return found


def test_each_worker_has_a_bar_as_full_as_its_list(tmp_path: Path) -> None:
    one = a_round(tmp_path)
    page = html(one)
    bars = re.findall(r'<i class="(\w+)" role="img" style="--f:([0-9.]+);--t:([0-9.]+)" title="(\w+) in', page)
    assert {(standing, name) for standing, _, _, name in bars} == {("live", f"w{number}") for number in range(5)}
    for _, full, target, name in bars:
        number = one.workers.names[name]
        assert float(full) == pytest.approx(one.placement.loads.kept[number] / 10**7, abs=0.06)
        assert float(target) == pytest.approx(one.placement.loads.target[number] / 10**7, abs=0.06)


def test_parts_cover_all_chunks_of_a_dataset_in_the_order_of_their_blocks(tmp_path: Path) -> None:
    found = parts(a_round(tmp_path, count=3 * PARTS + 7, capacity="100G"))
    assert len(found) == PARTS
    assert sum(part.chunks for part in found) == 3 * PARTS + 7
    assert [part.start for part in found[1:]] == [part.end for part in found[:-1]]
    assert sum(part.width for part in found) == pytest.approx(1)


def test_range_is_as_its_worst_chunk(tmp_path: Path) -> None:
    one = a_round(tmp_path)
    assert {part.kind for part in parts(one)} == {"missing"}  # nothing has been confirmed
    documents = {want.id: want.to_json() for want in map(a_chunk, range(50))}
    one.publish(SimpleNamespace(sha256="a" * 64, documents=lambda ids: map(documents.__getitem__, ids)))
    lists = json.loads((tmp_path / "to" / "placement.json").read_bytes())["lists"]
    for name, said in list(lists.items())[:3]:
        (tmp_path / "reports" / f"{name}.json").write_text(json.dumps({"at": NOW, "applied": said["sha256"]}))
    one = a_round(tmp_path)
    for part in parts(one):
        assert part.kind == ("missing" if part.confirmed == 0 else "here" if part.confirmed == 3 else "coming")
    for name, said in lists.items():
        (tmp_path / "reports" / f"{name}.json").write_text(json.dumps({"at": NOW, "applied": said["sha256"]}))
    one = a_round(tmp_path)
    assert {part.kind for part in parts(one)} == {"here"}
    assert all((part.listed, part.confirmed, part.wanted) == (3, 3, 3) for part in parts(one))
    one = a_round(tmp_path, workers=2)
    assert {part.kind for part in parts(one)} <= {"failing", "missing"}
    assert set(MEANINGS) == {"here", "coming", "failing", "missing"}


def test_page_lists_what_moves_and_what_is_short_up_to_a_bound(tmp_path: Path) -> None:
    page = html(a_round(tmp_path, count=LISTED + 60, capacity="10M"))
    assert "added: the chunk has too few copies" in page
    assert len(re.findall(r"<tr><td>[0-9a-f]{64}</td>", page)) == LISTED
    assert "more: fsdm place --json tells all" in page
    assert len(re.findall(r'<th scope="row">w\d</th>', page)) == 5


def test_page_runs_and_loads_nothing_and_names_are_text(tmp_path: Path) -> None:
    evil = tmp_path / "<script>alert(1)<"
    evil.mkdir()
    page = html(a_round(evil, zone="\"><script>alert('z')</script>"))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)


def test_fleet_without_chunks_has_a_page(tmp_path: Path) -> None:
    assert "How full the workers are" in html(a_round(tmp_path, count=0))
    assert len(Wants({}, 3, None)) == 0
