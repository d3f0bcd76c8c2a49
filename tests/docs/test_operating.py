"""The page for operators: each recovery mends its bad state, and the numbers are right."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fsdm import Client, DataChunk, DataManager, Limits
from fsdm.cli.main import EXIT_CODES
from fsdm.store.flock import SAFE_FILE_SYSTEMS
from tests.support import PATIENCE_S, Source, eventually, expected, owner, ran_by_shell, reconciling, shell_holding
from tests.support.chunks import bring, chunk_dir, failure, files_of, touch_delete
from tests.support.pages import PAGES, sections

PAGE = PAGES["operating.md"].read_text(encoding="utf-8")
SECTIONS = {section.title: section for section in sections("operating.md")}
OTHERS = {"Limits of the system", "Room", "Settings", "Upgrades"}
RECOVERIES = {title: one for title, one in SECTIONS.items() if one.level == 3 and title not in OTHERS}


@dataclass
class Site:
    """A data directory with one chunk, where the commands of the page are run."""

    at: Path
    source: Source
    chunk: DataChunk
    more: DataChunk
    stack: ExitStack
    names: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.at / "data"

    def reconcile(self) -> subprocess.Popen[str]:
        """`fsdm run`, beside the page's commands."""
        return self.stack.enter_context(reconciling(self.data))

    def want(self, chunk: DataChunk) -> None:
        with Client(self.data) as client:
            client.download_chunk(chunk)

    def delete(self, chunk: DataChunk) -> None:
        with Client(self.data) as client:
            client.delete_chunk(chunk.id)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """The page's commands, by copy and paste; what they leave running is stopped."""
        names = {"ID": self.chunk.id, "DATASET": self.chunk.dataset_id, **self.names}
        end = "trap 'for job in $(jobs -p); do kill $job; done; wait' EXIT\n"
        return ran_by_shell(end + script, self.at, "-em", **names)

    def here(self, data: str = "data") -> dict[str, dict[str, bytes]]:
        """Read the files of each available chunk."""
        found = {}
        with Client(self.at / data) as client:
            for place in client.available_places():
                ref = client.find_chunk(place.dataset_id, place.block_range.start)
                assert ref is not None
                with ref:
                    found[ref.id] = files_of(ref.path)
        return found

    def bytes_of(self, *chunks: DataChunk) -> dict[str, dict[str, bytes]]:
        return {chunk.id: expected(chunk, self.source) for chunk in chunks}


@pytest.fixture
def site(tmp_path: Path, source: Source) -> Iterator[Site]:
    with ExitStack() as stack:
        yield make_site(tmp_path, source, stack)


def make_site(at: Path, source: Source, stack: ExitStack, size: int = 1000) -> Site:
    chunk, more = source.chunk(size=size), source.chunk(start=10, end=20, size=size)
    with DataManager(at / "data") as dm:
        bring(dm, chunk)
    (at / "chunk.json").write_bytes(chunk.to_json())
    return Site(at, source, chunk, more, stack)


# Each makes the state, yields while the page's commands are run, and then asserts what is to hold. A new one has a
# section in the page, with one block of commands, and a row in `STATES`: by its title.


def killed(site: Site) -> Iterator[None]:
    process = site.reconcile()
    fault = site.source.fault(f"/{site.more.id}/blocks.parquet", stall_at=100)
    site.want(site.more)
    assert fault.stalled.wait(PATIENCE_S)
    process.kill()
    process.wait(PATIENCE_S)
    fault.gate.set()
    del site.source.faults[f"/{site.more.id}/blocks.parquet"]
    assert owner(site.data) == process.pid  # LOCK still names the dead one
    yield
    assert site.here() == site.bytes_of(site.chunk, site.more)


def full(site: Site) -> Iterator[None]:
    site.reconcile()
    site.want(site.more)
    told = eventually(lambda: failure(site.data, site.more.id))
    assert told["kind"] in {"disk", "room"}
    site.names["OLD"] = site.chunk.id
    yield
    assert site.here() == site.bytes_of(site.more)


def read_only(site: Site) -> Iterator[None]:
    site.want(site.more)
    subprocess.run(["mount", "-o", "remount,ro", site.at], check=True)
    site.names["DISK"] = str(site.at)
    assert site.run("fsdm run -d data").returncode == 6
    yield
    assert site.here() == site.bytes_of(site.chunk, site.more)


def lock_removed(site: Site) -> Iterator[None]:
    site.reconcile()
    (site.data / "LOCK").unlink()
    site.want(site.more)
    yield
    assert site.here() == site.bytes_of(site.chunk, site.more)


def root_gone(site: Site) -> Iterator[None]:
    process = site.reconcile()
    site.want(site.more)
    site.data.rename(site.data.with_name("moved"))
    assert process.wait(PATIENCE_S) == 6
    yield
    assert site.here() == site.bytes_of(site.chunk, site.more)


def format_lost(site: Site) -> Iterator[None]:
    site.want(site.more)
    (site.data / "fsdm.json").unlink()
    done = site.run("fsdm run -d data")
    assert (done.returncode, '{"format": 1}' in done.stderr) == (6, True)
    yield
    assert site.here() == site.bytes_of(site.chunk, site.more)


def format_unknown(site: Site) -> Iterator[None]:
    site.want(site.more)
    (site.data / "fsdm.json").write_text('{"format": 2}')
    before = sorted(path for path in site.data.rglob("*"))
    yield
    assert sorted(path for path in site.data.rglob("*")) == before
    (site.data / "fsdm.json").write_text('{"format": 1}')
    assert site.here() == site.bytes_of(site.chunk)


def damaged(site: Site) -> Iterator[None]:
    with (chunk_dir(site.data, site.chunk) / "data" / "blocks.parquet").open("ab") as file:
        file.write(b"more")
    files = dict(site.source.files)
    site.source.files.clear()
    site.reconcile()
    eventually(lambda: failure(site.data, site.chunk.id) and site.here() == {})
    site.source.files.update(files)
    yield
    assert site.here() == site.bytes_of(site.chunk)


def not_converging(site: Site) -> Iterator[None]:
    site.reconcile()
    files = site.source.files
    good = {path: files.pop(path) for path in list(files) if site.more.id in path}
    site.want(site.more)
    eventually(lambda: failure(site.data, site.more.id))
    site.names["ID"] = site.more.id
    urls = {name: f"{site.source.url}/moved/{name}" for name in site.more.files}
    files |= {f"/moved/{Path(path).name}": content for path, content in good.items()}
    mended = DataChunk(id=site.more.id, dataset_id=site.more.dataset_id, block_range=(10, 20), files=urls)
    (site.at / "mended.json").write_bytes(mended.to_json())
    yield
    files.update(good)
    assert site.here() == site.bytes_of(site.chunk, site.more)


def held(site: Site) -> Iterator[None]:
    site.reconcile()
    holder = site.stack.enter_context(shell_holding(chunk_dir(site.data, site.chunk)))
    site.delete(site.chunk)
    yield
    assert site.here() == {}
    holder.wait(PATIENCE_S)


def held_back(site: Site) -> Iterator[None]:
    many = [site.source.chunk(start=start, end=start + 1, files=1, size=10) for start in range(100, 260)]
    with DataManager(site.data, limits=Limits(durability="none")) as dm:
        for chunk in many:
            dm.download_chunk(chunk)
        dm.wait_converged(PATIENCE_S)
    site.reconcile()
    for chunk in many:
        touch_delete(site.data, chunk.id)
    with Client(site.data) as client:
        eventually(lambda: client.status().braked)
    yield
    assert site.here() == site.bytes_of(site.chunk)


def not_meant(site: Site) -> Iterator[None]:
    site.reconcile()
    asked = site.source.asked.total()
    site.stack.enter_context(shell_holding(chunk_dir(site.data, site.chunk)))
    site.delete(site.chunk)
    assert site.here() == {}
    yield
    assert site.here() == site.bytes_of(site.chunk)
    assert site.source.asked.total() == asked


def strange(site: Site) -> Iterator[None]:
    (site.data / "want" / "strange name").mkdir()
    (site.data / "chunks" / "strange").touch()
    yield
    with Client(site.data) as client:
        assert client.status().oddities == ()
    assert site.here() == site.bytes_of(site.chunk)


def clock(site: Site) -> Iterator[None]:
    site.names["ID"] = site.more.id
    site.reconcile()
    for name in site.more.files:
        site.source.fault(f"/{site.more.id}/{name}", status=404)
    site.want(site.more)
    told = eventually(lambda: failure(site.data, site.more.id))
    assert told["next_attempt_at"] - told["last_at"] > 60
    site.source.faults.clear()
    yield
    assert site.here() == site.bytes_of(site.chunk, site.more)


def backup(site: Site) -> Iterator[None]:
    with DataManager(site.data) as dm:
        bring(dm, site.more)
    (chunk_dir(site.data, site.chunk) / "data" / "logs.parquet").unlink()  # it was copied while it was erased
    assert site.here() != site.bytes_of(site.chunk, site.more)
    yield
    assert site.here("restored") == site.bytes_of(site.chunk, site.more)


def moved(site: Site) -> Iterator[None]:
    site.want(site.more)
    yield
    assert site.here("elsewhere") == site.bytes_of(site.chunk, site.more)
    assert not site.data.exists()


def started_over(site: Site) -> Iterator[None]:
    shutil.rmtree(chunk_dir(site.data, site.chunk))
    (site.data / "delete").rmdir()
    (site.data / "delete").touch()
    yield
    assert site.here() == site.bytes_of(site.chunk)


STATES: dict[str, Callable[[Site], Iterator[None]]] = {
    "The reconciler was killed, or the machine went down": killed,
    "The disk is full": full,
    "The disk is read-only": read_only,
    "LOCK was removed": lock_removed,
    "The data directory has gone": root_gone,
    "fsdm.json is lost": format_lost,
    "The format is not known": format_unknown,
    "A chunk is damaged": damaged,
    "A want does not converge": not_converging,
    "A deleted chunk does not go": held,
    "A delete that was not meant": not_meant,
    "Deletes are held back": held_back,
    "Strange files in the data directory": strange,
    "The clock jumped": clock,
    "Restored from a backup": backup,
    "Moved to another place": moved,
    "Started over": started_over,
}
ON_A_SMALL_DISK = {"The disk is full", "The disk is read-only"}


def test_every_recovery_has_its_bad_state() -> None:
    assert set(RECOVERIES) == set(STATES)


@pytest.mark.parametrize("title", STATES)
def test_recovery_ends_the_bad_state_that_it_is_for(title: str, source: Source, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if title in ON_A_SMALL_DISK:
            mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                pytest.skip("only root may mount a small disk")
            stack.callback(subprocess.run, ["umount", tmp_path], check=True)
        site = make_site(tmp_path, source, stack, size=900_000 if title == "The disk is full" else 1000)
        state = STATES[title](site)
        next(state)
        [block] = RECOVERIES[title].of("sh")
        done = site.run(block.text)
        assert done.returncode == 0, done.stderr
        assert next(state, title) is title, "it has one end"


@pytest.mark.parametrize("title", sorted(OTHERS))
def test_other_commands_of_the_page_run(title: str, site: Site) -> None:
    site.want(site.more)
    if title in {"Upgrades", "Settings"}:
        site.names["OLD"] = site.names["RECONCILER"] = str(site.reconcile().pid)
    [block] = SECTIONS[title].of("sh")
    done = site.run(block.text)
    assert done.returncode == 0, done.stderr
    assert title == "Limits of the system" or site.here() == site.bytes_of(site.chunk, site.more)


def test_every_block_of_the_page_is_run() -> None:
    with_blocks = {title for title, section in SECTIONS.items() if section.blocks}
    assert with_blocks == {*STATES, *OTHERS}
    assert all(block.language == "sh" for section in SECTIONS.values() for block in section.blocks)


def test_page_names_the_exit_codes_and_the_file_systems_that_there_are() -> None:
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == re.findall(r"^  (\d+)  ", EXIT_CODES, re.MULTILINE)
    named = re.search(r"Known to be safe, on one machine: ([^.]+)\.", PAGE)
    assert named is not None
    assert set(re.split(r",\s+", named[1])) == SAFE_FILE_SYSTEMS


def _bound(what: str) -> int:
    found = re.search(rf"^\| {what} of the reconciler \|.*\bunder (\d+)", PAGE, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_reconciler_under_load_keeps_to_the_sizes_that_the_page_says(data_dir: Path, source: Source) -> None:
    limits = Limits()
    chunks = [source.chunk(start=start, end=start + 1, files=4, size=300_000) for start in range(2 * limits.jobs)]
    faults = {path: source.fault(path, stall_at=150_000) for path in source.files}
    with reconciling(data_dir) as process:
        with Client(data_dir) as client:
            for chunk in chunks:
                client.download_chunk(chunk)
        running = limits.connections + -(-limits.connections // 4)  # and those for small files
        eventually(lambda: sum(fault.stalled.is_set() for fault in faults.values()) >= running)
        proc = Path(f"/proc/{process.pid}")
        status = (proc / "status").read_text()
        assert len(list((proc / "fd").iterdir())) < _bound("descriptors")
        assert int(re.findall(r"Threads:\s+(\d+)", status)[0]) < _bound("threads")
        assert int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) < _bound("memory") * 1000
        for fault in faults.values():
            fault.gate.set()
