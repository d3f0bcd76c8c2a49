"""`fsdm report` and `fsdm place` together: a fleet of directories converges by lists and reports alone."""

import gzip
import json
from pathlib import Path

from fsdm.model.layout import Layout
from tests.support import fsdm, fsdm_json
from tests.support.chunks import an_id, of_place, put_chunk
from tests.support.source import Source


def test_report_names_the_list_by_the_sha256_of_its_text(layout: Layout, tmp_path: Path) -> None:
    place = put_chunk(layout, chunk_id=an_id(1))
    plain, packed = tmp_path / "list", tmp_path / "list.gz"
    plain.write_bytes(of_place(place).to_json())
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    said = [fsdm_json("report", "-d", layout.root, path, "--name", "a1") for path in (plain, packed)]
    assert said[0]["applied"] == said[1]["applied"]
    assert said[0]["missing"] == said[0]["extra"] == []
    done = fsdm("report", "-d", layout.root, plain)
    assert done.stdout.splitlines() == [
        "node\ta1", "missing\t0 chunks", "extra\t0 chunks", "failing\t0 chunks", "here\t100 bytes",
    ]  # fmt: skip


def test_what_cannot_be_reported_ends_with_2(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "list").write_text('{"end": 0}\n')
    assert fsdm("report", "-d", layout.root, tmp_path / "list").returncode == 2
    assert fsdm("report", "-d", layout.root, tmp_path / "list", "--name", "../x").returncode == 2
    assert fsdm("report", "-d", layout.root, tmp_path / "list", "--name", "a", "--to", tmp_path / "no").returncode == 2
    assert fsdm("report", "-d", layout.root, tmp_path / "list", "--name", "b").returncode == 2


def test_fleet_of_three_directories_fills_drains_and_loses_nothing(tmp_path: Path, source: Source) -> None:
    wants = {(chunk := source.chunk(start=n, end=n + 1, files=1, size=1000)).id: chunk for n in range(12)}
    (tmp_path / "chunks").write_bytes(b"".join(chunk.to_json() for chunk in wants.values()))
    (tmp_path / "reports").mkdir()
    workers = [{"name": name, "capacity": 30_000} for name in ("a", "b", "c")]

    def placed(*more: str) -> dict:
        (tmp_path / "workers").write_text("".join(json.dumps(worker) + "\n" for worker in workers))
        options = ("--workers", tmp_path / "workers", "--reports", tmp_path / "reports", "--to", tmp_path / "fleet")
        fsdm_json("place", tmp_path / "chunks", *options, "--replicas", 2, "--silent", 3600, *more)
        return json.loads((tmp_path / "fleet" / "placement.json").read_bytes())["lists"]

    def applied(lists: dict, name: str) -> dict:
        """What each node does: sync, run, report."""
        where = tmp_path / "fleet" / "lists" / f"{lists[name]['sha256']}.jsonl.gz"
        (tmp_path / name).mkdir(exist_ok=True)
        assert fsdm("run", "--once", "-d", tmp_path / name).returncode in {0, 4}
        assert fsdm("sync", "-d", tmp_path / name, where, "--yes").returncode == 0
        assert fsdm("run", "--once", "-d", tmp_path / name, "--brake", "off").returncode == 0
        said = fsdm_json("report", "-d", tmp_path / name, where, "--name", name, "--to", tmp_path / "reports")
        assert said["applied"] == lists[name]["sha256"]
        return said

    def here(name: str) -> set[str]:
        return set(fsdm("ls", "-d", tmp_path / name).stdout.split())

    lists = placed()
    assert sum(said["chunks"] for said in lists.values()) == 2 * len(wants)
    for name in "abc":
        assert applied(lists, name)["missing"] == []
    workers[2]["draining"] = True
    for _ in range(2):
        lists = placed()
        for name in "abc":
            applied(lists, name)
            held = [here(node) for node in "abc"]
            assert all(sum(one in some for some in held) >= 2 for one in wants)
    assert here("a") == here("b") == set(wants)
    assert here("c") == set()
