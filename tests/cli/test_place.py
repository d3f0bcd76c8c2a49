"""`fsdm place`, from outside: what it says, what it publishes, and how it ends."""

import gzip
import json
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fsdm.cli import main as cli
from fsdm.fleet.metrics import METRICS
from tests.support import fsdm, fsdm_json, ran
from tests.support.chunks import a_want, an_id


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A list of 60 chunks of 1 to 3 MB, and 4 workers in two zones."""
    wants = [
        {
            "id": an_id(number),
            "dataset_id": "d" * 64,
            "block_range": [number, number + 1],
            "files": {"blocks.parquet": {"url": f"http://h/{number}", "size": 10**6 * (1 + number % 3)}},
        }
        for number in range(60)
    ]
    (tmp_path / "chunks.jsonl").write_text("".join(json.dumps(want) + "\n" for want in wants))
    workers = [{"name": f"w{number}", "capacity": "200M", "zone": f"r{number % 2}"} for number in range(4)]
    (tmp_path / "workers.jsonl").write_text("".join(json.dumps(worker) + "\n" for worker in workers))
    (tmp_path / "reports").mkdir()
    return tmp_path


def place(here: Path, *more: object) -> tuple[object, ...]:
    return ("place", here / "chunks.jsonl", "--workers", here / "workers.jsonl", "--to", here / "fleet", *more)


def report_all(here: Path, at: float) -> None:
    pointer = json.loads((here / "fleet" / "placement.json").read_bytes())
    for name, said in pointer["lists"].items():
        (here / "reports" / f"{name}.json").write_text(json.dumps({"at": at, "applied": said["sha256"]}))


def test_place_publishes_and_says_what_it_does(here: Path) -> None:
    done = fsdm(*place(here, "--replicas", 2))
    assert (done.returncode, done.stderr) == (0, "published as number 1\n")
    assert done.stdout.splitlines()[:4] == [
        "60 chunks on workers: 4 live",
        "added\t120 (240.0 MB)\tmissing",
        "added\t0 (0 bytes)\tleaving",
        "added\t0 (0 bytes)\tbalance",
    ]
    assert fsdm(*place(here, "--replicas", 2)).stderr == "nothing has changed: the last lists hold\n"


def test_dry_run_says_the_same_and_publishes_nothing(here: Path) -> None:
    found = fsdm_json(*place(here, "--dry-run"))
    assert found["dry_run"] is True
    assert found["published"] is None
    assert found["added"]["missing"] == {"copies": 180, "bytes": 360_000_000}
    assert found["workers"] == {"live": 4, "away": 0, "gone": 0, "draining": 0}
    assert not (here / "fleet").exists()
    assert fsdm_json(*place(here))["published"] == 1


def test_chunks_that_do_not_fit_are_named_those_with_the_fewest_copies_first(here: Path) -> None:
    done = fsdm(*place(here, "--replicas", 4, "--full", "50%", "--list-short", 2))
    assert done.returncode == 0
    assert "with too few copies" in done.stdout
    *_, first, second = done.stdout.splitlines()
    assert first.endswith("0 confirmed, 3 of 4\tthe workers have no room for more")
    assert second.split("\t")[1:] == first.split("\t")[1:]
    short = fsdm_json(*place(here, "--replicas", 4, "--full", "50%"))["short"]
    assert [one["copies"] for one in short] == sorted(one["copies"] for one in short)
    assert len(short) > 2


@pytest.mark.parametrize("bounds", [("--in-flight", "10M"), ("--in-flight", "1M")])
def test_chunk_that_waits_for_the_next_round_says_so(here: Path, bounds: tuple[str, str]) -> None:
    found = fsdm_json(*place(here, *bounds))
    assert {one["why"].partition(":")[0] for one in found["short"]} == {"it waits for the next round"}
    assert 0 < found["added"]["missing"]["bytes"] <= 4 * 10_000_000


def test_explain_says_why_a_chunk_and_a_worker_have_what_they_have(here: Path) -> None:
    first, *lines = fsdm(*place(here, "--explain", an_id(7))).stdout.splitlines()
    assert first == f"{an_id(7)} is in 3 lists to stay, and asks for 3; 0 confirmed"
    assert len(lines) == 3
    assert all(line.endswith(": added: the chunk has too few copies") for line in lines)
    said = fsdm(*place(here, "--explain", "w2")).stdout
    assert said.startswith("w2 is live: 200.0 MB, r0\nits list has ")
    assert "copies move from 4% on" in said
    assert fsdm_json(*place(here, "--explain", "w2"))["why"] == said.splitlines()
    assert not (here / "fleet").exists()
    for nothing in ("w9", "f" * 64, "\x1b[2J", "zz" * 32):
        done = fsdm(*place(here, "--explain", nothing))
        assert (done.returncode, "\x1b" in done.stderr) == (3, False)


def test_explain_tells_of_a_copy_that_leaves_and_of_one_that_is_dropped(here: Path) -> None:
    fsdm(*place(here, "--replicas", 2))
    report_all(here, time.time())
    how = ("--reports", here / "reports", "--replicas", 2, "--silent", 3600)
    workers = (here / "workers.jsonl").read_text()
    (here / "workers.jsonl").write_text(workers.replace('"r1"}', '"r1", "draining": true}', 1))
    found = fsdm_json(*place(here, *how))
    assert found["published"] == 2
    assert found["added"]["leaving"]["copies"] == found["leaving"]["copies"] > 0
    pointer = json.loads((here / "fleet" / "placement.json").read_bytes())
    routes = gzip.decompress((here / "fleet" / "routes" / f"{pointer['routes']}.jsonl.gz").read_bytes())
    moved = next(route["id"] for route in map(json.loads, routes.splitlines()) if "leaving" in route)
    said = fsdm(*place(here, *how, "--explain", moved)).stdout
    assert "w1 in r1: confirmed; it leaves once the others are confirmed, for the worker drains" in said
    report_all(here, time.time())
    said = fsdm(*place(here, *how, "--explain", moved)).stdout
    assert "w1 in r1: dropped: the others are confirmed" in said


def test_chunk_without_a_size_is_told_with_its_line_unless_one_is_assumed(here: Path) -> None:
    with (here / "chunks.jsonl").open("ab") as file:
        file.write(a_want(id=an_id(999), files={"x": "http://h/x"}).to_json())
    done = fsdm(*place(here))
    assert done.returncode == 2
    assert "chunks.jsonl:61: files: " in done.stderr
    assert "'x' declares no size" in done.stderr
    assert fsdm_json(*place(here, "--assume-bytes", "2M"))["added"]["missing"]["bytes"] == 366_000_000


def test_picture_is_written_as_a_page_or_to_stdout(here: Path) -> None:
    page = here / "fleet.html"
    assert fsdm(*place(here, "--dry-run", "--html", page)).stdout.startswith("60 chunks on workers")
    assert page.read_text().startswith("<!DOCTYPE html>")
    done = fsdm(*place(here, "--html", "-"))
    assert (done.returncode, done.stdout.count("<!DOCTYPE html>")) == (0, 1)
    assert done.stdout.rstrip().endswith("</html>")
    assert done.stderr == "published as number 1\n"
    for more in ("--json", ("--explain", "w1")):
        assert fsdm(*place(here, "--html", "-"), *([more] if isinstance(more, str) else more)).returncode == 2
    assert fsdm(*place(here, "--html", here)).returncode == 2


def test_too_much_that_is_lost_ends_with_8_and_changes_nothing_until_it_is_meant(here: Path) -> None:
    wants = (here / "chunks.jsonl").read_text().splitlines(keepends=True)
    fsdm(*place(here))
    before = (here / "fleet" / "placement.json").read_bytes()
    (here / "chunks.jsonl").write_text("".join(wants[:20]))
    done = fsdm(*place(here))
    assert done.returncode == 8
    assert "120 of 180 copies are of chunks that are no longer listed" in done.stderr
    assert (here / "fleet" / "placement.json").read_bytes() == before
    assert fsdm(*place(here, "--yes")).returncode == 0
    (here / "chunks.jsonl").write_text("")
    assert fsdm(*place(here)).returncode == 2
    assert fsdm(*place(here, "--yes")).returncode == 0


def test_workers_that_brake_and_chunks_that_they_cannot_fetch_are_told(here: Path) -> None:
    fsdm(*place(here))
    report_all(here, time.time())
    for name in ("w1", "w3"):
        (here / "reports" / f"{name}.json").write_text(
            json.dumps({"at": time.time(), "braked": True, "failing": [an_id(1)]})
        )
    args = place(here, "--reports", here / "reports", "--dry-run")
    lines = fsdm(*args).stdout.splitlines()
    assert "braked\t2 workers whose own brake holds deletes back\tw1 w3" in lines
    assert "failing\t2 chunks that workers cannot fetch: fsdm status there says why" in lines
    found = fsdm_json(*args)
    assert (found["braked"], found["failing"]) == (["w1", "w3"], 2)


def test_report_that_cannot_be_read_is_told_and_loses_nothing(here: Path) -> None:
    fsdm(*place(here))
    (here / "reports" / "w1.json").write_text("{")
    done = fsdm(*place(here, "--reports", here / "reports"))
    assert done.returncode == 0
    assert "the report of w1 cannot be read, and w1 counts as away: Invalid JSON" in done.stderr
    assert "60 chunks on workers: 3 live, 1 away" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--replicas", "0"), "must be a number from 1 to 64"),
        (("--replicas", "xy=3"), "64 lower-case hex digits"),
        (("--workers", "/nowhere"), "cannot be read"),
        (("--reports", "/nowhere"), "cannot be listed"),
        (("--in-flight", "much"), "no size"),
        (("--full", "2"), "no share"),
        (("--moves", "0"), "at least 1"),
    ],
)
def test_what_cannot_be_taken_ends_with_2_and_says_what(here: Path, arguments: tuple[str, str], says: str) -> None:
    done = fsdm(*place(here), *arguments)
    assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_without_numpy_it_says_what_to_install(here: Path) -> None:
    program = "import sys; sys.modules['numpy'] = None; from fsdm.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = ran(sys.executable, "-c", program, *map(str, place(here)))
    assert done.returncode == 1
    assert "pip install 'fsdm[fleet]'" in done.stderr
    assert "--workers" in ran(sys.executable, "-c", program, "place", "--help").stdout


def samples(path: Path) -> dict[tuple[str, str], float]:
    """The samples of a text of metrics: by name, and the value of the label."""
    return {
        (one.name, next(iter(one.labels.values()), "")): one.value
        for family in text_string_to_metric_families(path.read_text())
        for one in family.samples
    }


def test_metrics_tell_what_is_below_its_target_in_flight_and_behind(here: Path) -> None:
    file = here / "place.prom"
    args = place(here, "--reports", here / "reports", "--metrics-file", file)
    assert fsdm(*args).returncode == 0
    found = samples(file)
    assert {name for name, _ in found} | {"fsdm_place_worker_behind_seconds"} == {metric.name for metric in METRICS}
    assert found["fsdm_place_below_target_chunks", ""] == found["fsdm_place_chunks", ""] == 60
    assert found["fsdm_place_in_flight_bytes", ""] == found["fsdm_place_added_bytes", "missing"] == 360_000_000
    assert sum(value for (name, _), value in found.items() if name.endswith("worker_in_flight_bytes")) == 360_000_000
    placed_at = found["fsdm_place_timestamp_seconds", ""]
    assert (here / "chunks.jsonl").stat().st_mtime <= placed_at <= file.stat().st_mtime
    report_all(here, time.time())
    (here / "reports" / "w1.json").write_text(json.dumps({"at": time.time(), "braked": True}))
    assert fsdm(*args).returncode == 0
    found = samples(file)
    behind = {worker: value for (name, worker), value in found.items() if name.endswith("behind_seconds")}
    assert "w1" in behind
    assert all(0 <= value < 600 for value in behind.values())
    assert found["fsdm_place_applied_workers", ""] == 4 - len(behind)
    assert found["fsdm_place_braked_workers", ""] == 1
    assert ("fsdm_place_worker_in_flight_bytes", "w1") in found
    assert 0 < found["fsdm_place_below_target_chunks", ""] < 60
    assert found["fsdm_place_workers", "live"] == 4
    text = file.read_text()
    assert fsdm(*args, "--dry-run").returncode == 0
    assert file.read_text() == text


def test_dry_run_says_what_would_move_from_where_and_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*more: object) -> str:
        assert cli.main([*map(str, place(here, "--replicas", 2, *more))]) == 0
        return capsys.readouterr().out

    lines = said("--dry-run", "--list-moves", 3).splitlines()
    assert lines[-1] == "117 more moves: --list-moves N, or --json for all"
    assert all(line.split("\t")[3] == "missing: the chunk has too few copies" for line in lines[-4:-1])
    assert lines[-4].split("\t")[1].startswith("(new) → w")
    moves = json.loads(said("--dry-run", "--json"))["moves"]
    assert len(moves) == 120
    assert moves[0].keys() == {"id", "bytes", "from", "to", "reason", "why"}
    assert "moves" not in json.loads(said("--json"))


@pytest.mark.parametrize(
    ("peers", "says"), [("http://h:1", "must have {name} in it"), ("h-{name}:1", "must be as http://a1:8081")]
)
def test_peers_are_a_url_with_the_name_of_a_worker(
    here: Path, peers: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([*map(str, place(here, "--peers", peers))])
    assert says in capsys.readouterr().err
