"""fleet.md, "Queries": its programs are run as they stand there, on nodes that are processes; so is its worker."""

import gzip
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from fsdm.fleet.documents import Pointer
from tests.support import begun, eventually, ran
from tests.support.dask_fleet import DATASET, Nodes, Processes, in_processes
from tests.support.pages import Block, like, sections

[QUERIES] = [section for section in sections("fleet.md") if section.title == "Queries"]
SETUP, *MORE = QUERIES.of("python")
SHOWN = [block.text for block in QUERIES.of("text")]

needs_pyarrow = pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is in the extra `recipes`")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Processes, Path]]:
    """Three nodes with a worker each, and the directory with their routes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("fleet")
    nodes = Nodes(root, blocks=100)
    for number in range(3):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"number": [*range(number * 100, (number + 1) * 100)]}), sink)
        nodes.put("abc"[number], "abc"[number - 1], **{"blocks.parquet": sink.getvalue().to_pybytes()})
    text = b"".join(
        json.dumps({"dataset_id": DATASET, "start": int(name[:20]), "end": int(name[21:41]), "id": name[42:]}).encode()[
            :-1
        ]
        + b', "workers": %s}\n' % json.dumps(held.keeping).encode()
        for name, held in sorted(nodes.held.items())
    )
    sha256 = hashlib.sha256(text).hexdigest()
    published = root / "published"
    (published / "routes").mkdir(parents=True)
    (published / "routes" / f"{sha256}.jsonl.gz").write_bytes(gzip.compress(text))
    (published / "placement.json").write_bytes(Pointer(number=1, at=1.0, routes=sha256, lists={}).to_json())
    with in_processes(nodes, "a", "b", "c") as processes:
        yield processes, published


@needs_pyarrow
@pytest.mark.parametrize("number", range(len(MORE) + 1))
def test_program_of_the_page_prints_what_is_shown(number: int, fleet: tuple[Processes, Path], tmp_path: Path) -> None:
    blocks = [SETUP, *MORE[number - 1 : number]] if number else [SETUP]
    for library in filter(None, (block.says("needs") for block in blocks)):
        pytest.importorskip(library, reason=f"{library} is in the extra `recipes`")
    processes, published = fleet
    names = f"SCHEDULER, FLEET, DATASET = {processes.address!r}, {str(published)!r}, {DATASET!r}\n"
    script = tmp_path / "program.py"
    script.write_text(names + "".join(block.text for block in blocks))
    done = ran(sys.executable, "-W", "error", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = "".join([SHOWN[0], *([SHOWN[number]] if number else [])])
    assert like(shown).fullmatch(done.stdout), done.stdout


def test_worker_of_the_page_becomes_a_node(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    Path(nodes.layout("data").node_id).write_text("a1\n")
    [block] = QUERIES.of("sh")
    with in_processes(nodes) as processes, Client(processes.address) as client:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        names = {"SCHEDULER": processes.address, "PATH": path, "TMPDIR": str(tmp_path), "FSDM_START_WITHIN": "0"}
        with begun(["bash", "-c", f"exec env {block.text}"], cwd=tmp_path, env={**os.environ, **names}) as process:
            eventually(lambda: list(client.sync(client.scheduler.identity, n_workers=-1)["workers"].values()))
            [worker] = client.sync(client.scheduler.identity, n_workers=-1)["workers"].values()
            assert worker["metrics"]["fsdm"] == {"node": "a1"}
            process.terminate()
            process.wait()


def test_every_call_of_the_page_is_there(fleet_client: type) -> None:
    named = [line.split("`")[1] for line in QUERIES.text.splitlines() if line.startswith("| `")]
    calls = [call.partition("(") for call in named if call.endswith(")")]
    assert [call[0] for call in calls] == ["map_range", "map_nodes", "map_key", "submit"]
    for name, _, parameters in calls:
        code = getattr(fleet_client, name).__code__
        taken = [word.partition("=")[0].strip().removesuffix("_id") for word in parameters.rstrip(")").split(",")]
        assert taken == [one.removesuffix("_id") for one in code.co_varnames[1 : code.co_argcount]]


@pytest.fixture
def fleet_client() -> type:
    from fsdm import FleetClient

    return FleetClient


def test_figures_of_the_page_are_the_defaults(fleet_client: type) -> None:
    import inspect

    from fsdm.fleet.dask_node import START_WITHIN_S
    from fsdm.fleet.members import BEATS, beat_interval_s

    given = {name: one.default for name, one in inspect.signature(fleet_client).parameters.items()}
    for name, said in (("silent_s", "`silent_s` (5 s"), ("cool_down_s", "(30 s)"), ("patience_s", "(10 s)")):
        assert said in QUERIES.text
        assert f"{given[name]:g} s" in said
    assert BEATS * beat_interval_s(1000) == 18.0
    assert f"`FSDM_START_WITHIN` seconds ({START_WITHIN_S:g})" in QUERIES.text


def test_page_has_a_program_for_each_text() -> None:
    assert len(SHOWN) == len(MORE) + 1
    assert all(isinstance(block, Block) for block in MORE)
