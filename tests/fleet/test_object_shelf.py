"""The shelf in an object store: the store decides between two that replace, and what a pointer names is there first."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import Client
from fsdm.concurrency.cancellation import Cancellation
from fsdm.fleet.object_shelf import AT_ONCE, PROBE, ObjectShelf
from fsdm.fleet.shelf import KEPT_S
from fsdm.lists.last import FollowLock
from fsdm.lists.reporting import Reports
from fsdm.model.errors import DataDirectoryError, InvalidInputError, PublishedMeanwhileError, TransferError
from fsdm.model.follow import Follow
from fsdm.model.layout import Layout
from fsdm.model.sources import Source
from fsdm.transfer.http.source_settings import Sources
from tests.support import PATIENCE_S, fsdm
from tests.support.chunks import an_id
from tests.support.object_store import WritableStore
from tests.support.servers import no_environment

__all__ = ["no_environment"]  # a fixture
POINTER = "placement.json"
SECRET = "se/cr+et:hush"


@pytest.fixture
def store() -> Iterator[WritableStore]:
    with WritableStore() as store:
        yield store


def a_shelf(store: WritableStore, url: str = "s3://lake/a fleet", **how: Any) -> ObjectShelf:
    keys = {"access_key_id": "AKID", "secret_access_key": SECRET}
    return ObjectShelf(url, Sources([Source(match="s3://lake/", endpoint=store.url, **keys | how)]))


def test_file_is_read_as_it_was_put_and_one_that_is_missing_is_none(store: WritableStore) -> None:
    shelf = a_shelf(store)
    assert shelf.read("lists/a") is None
    assert not shelf.renew("lists/a")
    data = bytes(range(256)) * 20_000  # libcurl would ask first whether it may send so much
    shelf.put("lists/a", data)
    shelf.replace(POINTER, b"1", instead_of=shelf.read(POINTER))
    assert a_shelf(store).read("lists/a") == data
    assert a_shelf(store).read(POINTER) == b"1"
    assert a_shelf(store).renew("lists/a")
    assert store.codes == []
    assert store.keys_below("lake") == [f"a fleet/{name}" for name in (PROBE, "lists/a", POINTER)]


def test_only_what_was_read_is_replaced(store: WritableStore) -> None:
    first, second = a_shelf(store), a_shelf(store)
    assert first.read(POINTER) is second.read(POINTER) is None
    first.replace(POINTER, b"1", instead_of=None)
    with pytest.raises(PublishedMeanwhileError, match="has published meanwhile"):
        second.replace(POINTER, b"2", instead_of=None)
    first, second = a_shelf(store), a_shelf(store)
    assert first.read(POINTER) == second.read(POINTER) == b"1"
    second.replace(POINTER, b"2", instead_of=b"1")
    with pytest.raises(PublishedMeanwhileError, match="has published meanwhile"):
        first.replace(POINTER, b"3", instead_of=b"1")
    third = a_shelf(store)
    assert third.read(POINTER) == b"2"
    del store.files[f"/lake/a%20fleet/{POINTER}"]
    with pytest.raises(PublishedMeanwhileError, match="has published meanwhile"):
        third.replace(POINTER, b"4", instead_of=b"2")


def test_store_that_does_not_keep_to_conditions_is_refused(store: WritableStore) -> None:
    store.honours = False
    with pytest.raises(DataDirectoryError, match=r"does not keep to If-None-Match \(HTTP 200\)"):
        a_shelf(store).replace(POINTER, b"1", instead_of=None)
    assert store.keys_below("lake") == [f"a fleet/{PROBE}"]


def test_pointer_is_put_when_all_else_is_there(store: WritableStore) -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)

    def before_put(path: str) -> None:
        if "/lists/" in path:
            begun.release()
            assert gate.wait(PATIENCE_S)
        elif path.endswith(POINTER):
            assert len(store.keys_below("lake")) == 101, "the probe, and all lists"

    store.before_put = before_put
    shelf = a_shelf(store)

    def publish() -> None:
        for number in range(100):
            shelf.put(f"lists/{number:03}", b"x")
        shelf.replace(POINTER, b"1", instead_of=None)

    thread = threading.Thread(target=publish)
    thread.start()
    for _ in range(AT_ONCE):  # they go at once
        assert begun.acquire(timeout=PATIENCE_S)
    gate.set()
    thread.join(PATIENCE_S)
    assert shelf.read(POINTER) == b"1"


def test_put_that_fails_is_an_error_before_the_pointer_and_shows_no_secret(store: WritableStore) -> None:
    shelf = a_shelf(store, secret_access_key="wrong/secret")
    shelf.put("lists/a", b"1")
    said = r"^s3://lake/a fleet/lists/a: HTTP 403 SignatureDoesNotMatch$"
    with pytest.raises(TransferError, match=said) as e:
        shelf.replace(POINTER, b"1", instead_of=None)
    assert "wrong/secret" not in repr(e.value)
    assert store.files == {}


def test_old_files_that_nothing_names_are_pruned_over_any_number_of_pages(store: WritableStore) -> None:
    store.page = 3
    shelf = a_shelf(store)
    for number in range(10):
        shelf.put(f"lists/{number}", b"")
    shelf.put("routes/0", b"")
    shelf.replace(POINTER, b"1", instead_of=None)
    for number in range(8):
        store.put_at[f"/lake/a%20fleet/lists/{number}"] -= 0.7 * KEPT_S if number == 7 else 2 * KEPT_S
    now = store.put_at["/lake/a%20fleet/lists/9"]
    assert shelf.prune("lists", {"2"}, now - KEPT_S) == 6
    assert store.keys_below("lake") == [f"a fleet/{name}" for name in (PROBE, *LEFT, POINTER, "routes/0")]
    fresh = a_shelf(store)
    # what could be pruned before who takes it has named it counts as gone, and is put there anew
    assert [name for name in LEFT if fresh.renew(name)] == ["lists/8", "lists/9"]
    assert shelf.prune("nothing", (), now) == 0


LEFT = ("lists/2", "lists/7", "lists/8", "lists/9")


def test_url_that_names_no_bucket_is_an_error(store: WritableStore) -> None:
    with pytest.raises(InvalidInputError, match="names no bucket"):
        a_shelf(store, "s3:///fleet")


MOTO = """
import sys, boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
url = "http://{}:{}".format(*server.get_host_and_port())
how = dict(aws_access_key_id="AKID", aws_secret_access_key="x", region_name="us-east-1", endpoint_url=url)
boto3.client("s3", **how).create_bucket(Bucket="lake")
print(url, flush=True)
sys.stdin.read()
"""


def test_s3_of_other_hands_decides_between_two_as_well() -> None:
    """moto checks no signature; but it keeps to conditions, lists and dates as S3 does."""
    pytest.importorskip("moto.server")
    pytest.importorskip("boto3")
    command = [sys.executable, "-W", "ignore", "-c", MOTO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            tables = [Source(match="s3://lake/", endpoint=url, access_key_id="AKID", secret_access_key="x")]
            first, second = (ObjectShelf("s3://lake/a fleet", Sources(tables)) for _ in range(2))
            assert first.read(POINTER) is second.read(POINTER) is None
            first.put("lists/a+b", b"list")
            first.replace(POINTER, b"1", instead_of=None)
            with pytest.raises(PublishedMeanwhileError):
                second.replace(POINTER, b"2", instead_of=None)
            assert second.read(POINTER) == first.read(POINTER) == b"1"
            second.replace(POINTER, b"2", instead_of=b"1")
            with pytest.raises(PublishedMeanwhileError):
                first.replace(POINTER, b"3", instead_of=b"1")
            assert first.renew("lists/a+b")
            assert first.prune("lists", (), 1e12) == 1
            assert second.read("lists/a+b") is None
        finally:
            server.terminate()


# ------------------------------------------------------------------------------------------------------ whole processes


@pytest.fixture
def here(tmp_path: Path, store: WritableStore) -> Path:
    """A list of chunks, two lists of workers, and the way into the store."""
    wants = [
        {"id": an_id(n), "dataset_id": "d" * 64, "block_range": {"start": n, "end": n + 1}, "files": FILES}
        for n in range(40)
    ]
    (tmp_path / "chunks").write_text("".join(json.dumps(want) + "\n" for want in wants))
    for name in ("one", "two"):
        lines = [json.dumps({"name": f"{name}{number}", "capacity": "1G"}) + "\n" for number in range(3)]
        (tmp_path / name).write_text("".join(lines))
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    table = f'[[source]]\nmatch = "s3://lake/"\nendpoint = "{store.url}"\naccess-key-id = "AKID"\n'
    (tmp_path / "store.toml").write_text(f'{table}secret-access-key-file = "secret"\n')
    return tmp_path


FILES = {"a.parquet": {"url": "http://h/a", "size": 10**6}}


def place(here: Path, workers: str, *more: str) -> list[str]:
    places = ["--workers", str(here / workers), "--to", "s3://lake/fleet", "--sources", str(here / "store.toml")]
    return ["place", str(here / "chunks"), *places, *more]


def test_of_two_processes_that_publish_at_once_one_wins_and_all_that_it_names_is_there(
    here: Path, store: WritableStore
) -> None:
    both = threading.Barrier(2)
    store.before_put = lambda path: path.endswith(POINTER) and both.wait(PATIENCE_S)
    commands = [[sys.executable, "-m", "fsdm", *place(here, workers)] for workers in ("one", "two")]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = {run.communicate(timeout=PATIENCE_S)[1].splitlines()[0]: run.returncode for run in runs}
    assert said["published as number 1"] == 0
    [code] = [code for text, code in said.items() if "another process has published meanwhile" in text]
    assert code != 0
    pointer = json.loads(store.files[f"/lake/fleet/{POINTER}"])
    assert {name[:3] for name in pointer["lists"]} in ({"one"}, {"two"})
    named = {f"fleet/lists/{one['sha256']}.jsonl.gz" for one in pointer["lists"].values()}
    assert named < set(store.keys_below("lake"))
    store.before_put = lambda _: None
    again = fsdm(*place(here, min(pointer["lists"])[:3]))
    assert (again.returncode, again.stderr) == (0, "nothing has changed: the last lists hold\n")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--sources", "none.toml"], "--sources: none.toml is not there"),
        (["--to", "gs://lake/fleet"], "--to: gs://lake/fleet: it is published into s3:// alone"),
        (["--to", "fleet"], "--sources: it is of use for an object store alone"),
        (["--sources", "/dev/null"], "/dev/null is not a file"),
        (["--reports", "https://h/reports"], "--reports: https://h/reports: they are read from s3:// alone"),
    ],
)
def test_place_that_cannot_be_published_to_is_told(here: Path, more: list[str], says: str) -> None:
    run = fsdm(*place(here, "one", *more))
    assert run.returncode == 2
    assert says in run.stderr


def test_reports_that_nodes_write_into_a_store_are_read_from_there(
    here: Path, store: WritableStore, layout: Layout
) -> None:
    tables = [Source(match="s3://lake/", endpoint=store.url, access_key_id="AKID", secret_access_key=SECRET)]
    follow = Follow(report="s3://lake/reports", zone="r1")
    FollowLock(layout).close()
    reports = Reports(Client(layout.root), follow, "one1", Sources(tables), Cancellation())
    reports.report(None)
    for name in ("older/one2.json", "one0.json"):
        a_shelf(store, "s3://lake/reports").write(name, b"{")
    read = ["--reports", "s3://lake/reports", "--dry-run"]
    run = fsdm(*place(here, "one", *read))
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("fsdm: the report of one0 cannot be read, and one0 counts as away: ")
    assert "one2 cannot be read" not in run.stderr
    assert run.stdout.startswith("40 chunks on workers: 2 live, 1 away\n")
    assert json.loads(store.files["/lake/reports/one1.json"])["zone"] == "r1"
