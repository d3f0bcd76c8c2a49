"""Directories that may not be read or listed: they hold up nothing else."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Source, eventually, expected
from tests.support.chunks import chunk_dir, entries, failure, files_of, put_want, touch_delete
from tests.support.known_faults import Fault, arrive, available, child, must_find

NOBODY = 65534
AS_NOBODY = f"""
import encodings.ascii, encodings.idna, os, portalocker.portalocker, requests
from fsdm import DataManager, Limits
from fsdm import manager
from fsdm.status import chunk_status as status
from fsdm.cli import commands as verbs
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
with DataManager(sys.argv[1], limits=Limits(max_bytes=1 << 40)):
    for line in sys.stdin:
        print(line, end="", flush=True)
"""


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Where a user who is not root may go, and may have a data directory."""
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    base = Path(tempfile.mkdtemp(prefix="fsdm-nobody-"))
    try:
        base.chmod(0o755)
        (base / "data").mkdir()
        os.chown(base / "data", NOBODY, NOBODY)
        yield base / "data"
    finally:
        shutil.rmtree(base)


@pytest.fixture
def reconciled(nobodys: Path) -> Iterator[Path]:
    """A data directory that is reconciled by a user who is not root."""
    with child(AS_NOBODY, nobodys):
        yield nobodys


def test_chunk_that_may_not_be_looked_into_is_kept_and_holds_up_no_other(reconciled: Path, source: Source) -> None:
    data_dir = reconciled
    shut, stuck, good, last = (source.chunk(start=n, end=n + 1) for n in range(4))
    arrive(data_dir, shut)
    there = chunk_dir(data_dir, shut)
    there.chmod(0o600)  # its owner may list it, rename it, and look at nothing in it
    (data_dir / "partial" / stuck.id).mkdir(mode=0o700)  # root's
    put_want(data_dir, stuck)
    put_want(data_dir, shut)
    arrive(data_dir, good)
    for chunk in (stuck, shut):
        told = eventually(lambda chunk=chunk: failure(data_dir, chunk.id))
        assert (told["kind"], "Permission denied" in told["error"]) == ("disk", True)
        assert "unexpected" not in told["error"]
    assert files_of(there / "data") == expected(shut, source)
    touch_delete(data_dir, good.id)
    put_want(data_dir, last)
    eventually(lambda: available(data_dir, last) and not chunk_dir(data_dir, good).exists())
    there.chmod(0o755)
    os.chown(data_dir / "partial" / stuck.id, NOBODY, NOBODY)
    eventually(lambda: available(data_dir, shut) and available(data_dir, stuck))
    assert source.asked[f"/{shut.id}/blocks.parquet"] == 1, "nothing was fetched again"
    eventually(lambda: not entries(data_dir / "failed"))


def test_directory_that_may_not_be_listed_holds_up_nothing(reconciled: Path, source: Source) -> None:
    data_dir = reconciled
    chunks = [source.chunk(start=n, end=n + 1) for n in range(3)]
    arrive(data_dir, chunks[0])
    (data_dir / "failed").chmod(0o300)
    eventually(lambda: not entries(data_dir / "partial"))
    (data_dir / "partial").rmdir()
    eventually((data_dir / "partial").exists, "a scan makes it, and comes to the other one")
    arrive(data_dir, chunks[1])
    touch_delete(data_dir, chunks[0].id)
    eventually(lambda: not chunk_dir(data_dir, chunks[0]).exists() and not entries(data_dir / "delete"))
    (data_dir / "failed").chmod(0o755)
    arrive(data_dir, chunks[2])


def test_dataset_that_may_not_be_listed_holds_up_no_other(nobodys: Path, source: Source) -> None:
    shut, other = (source.chunk(dataset=letter * 64) for letter in "de")
    with child(AS_NOBODY, nobodys):
        arrive(nobodys, shut)
    dataset = chunk_dir(nobodys, shut).parent
    dataset.chmod(0o300)
    with child(AS_NOBODY, nobodys):
        arrive(nobodys, other)
        touch_delete(nobodys, shut.id)
        touch_delete(nobodys, other.id)
        told = eventually(lambda: failure(nobodys, shut.id))
        assert (told["kind"], f"Permission denied: '{dataset}'" in told["error"]) == ("disk", True)
        eventually(lambda: not chunk_dir(nobodys, other).exists() and entries(nobodys / "delete") == [shut.id])
        dataset.chmod(0o755)
        eventually(lambda: not chunk_dir(nobodys, shut).exists() and not entries(nobodys / "delete"))


def test_failure_that_may_not_be_read_is_as_if_it_had_never_been(nobodys: Path, source: Source) -> None:
    failing, other = (source.chunk(start=n, end=n + 1) for n in range(2))
    source.fault(f"/{failing.id}/blocks.parquet", status=404)
    with child(AS_NOBODY, nobodys):
        put_want(nobodys, failing)
        eventually(lambda: failure(nobodys, failing.id))
    (nobodys / "failed" / failing.id).chmod(0o000)
    source.faults.clear()
    with child(AS_NOBODY, nobodys):
        put_want(nobodys, other)
        for chunk in (other, failing):
            eventually(lambda chunk=chunk: available(nobodys, chunk))
        eventually(lambda: not entries(nobodys / "failed"))


def test_chunk_that_may_not_be_read_keeps_no_other_from_the_audit(nobodys: Path, source: Source) -> None:
    shut, damaged = (source.chunk(start=n, end=n + 1) for n in range(2))
    with child(AS_NOBODY, nobodys):
        arrive(nobodys, shut, damaged)
    chunk_dir(nobodys, shut).chmod(0o300)
    os.truncate(chunk_dir(nobodys, damaged) / "data" / "logs.parquet", 3)
    with child(AS_NOBODY, nobodys):
        assert eventually(lambda: failure(nobodys, damaged.id))["kind"] == "damaged"
        assert failure(nobodys, shut.id) is None
        chunk_dir(nobodys, shut).chmod(0o755)
        assert available(nobodys, shut)


UNLISTED = test_dataset_that_may_not_be_listed_holds_up_no_other
CLOSED = test_chunk_that_may_not_be_looked_into_is_kept_and_holds_up_no_other
REFUSED, NOT_FOUND, EXISTS = (f"except {error} as e:" for error in ("OSError", "FileNotFoundError", "FileExistsError"))
FAULTS = [
    # a directory that cannot be listed ends the scan; a dataset, the refresh; a failure that cannot be read, the pass
    Fault(test_directory_that_may_not_be_listed_holds_up_nothing, "store.scan:_names", REFUSED, NOT_FOUND),
    Fault(UNLISTED, "store.catalog:Catalog._refresh_dataset", REFUSED, EXISTS),
    Fault(
        test_failure_that_may_not_be_read_is_as_if_it_had_never_been,
        *("store.json_files:read_failure", "(OSError, InvalidInputError)", "InvalidInputError"),
    ),
    # a delete goes though nobody knows, or waits for what is none of its business
    Fault(UNLISTED, "reconcile.apply:Applier._forget", "refused is not None", "False"),
    Fault(UNLISTED, "reconcile.apply:Applier._forget", "action.id not in self._retired", "True"),
    # a chunk that cannot be measured ends the pass; what cannot be read, the audit; what the disk refuses is a defect
    Fault(CLOSED, "store.disk_usage:bytes_in", REFUSED, EXISTS),
    Fault(
        test_chunk_that_may_not_be_read_keeps_no_other_from_the_audit,
        *("verify.manifest_check:ManifestCheck._run", REFUSED, NOT_FOUND),
    ),
    Fault(CLOSED, "reconcile.apply:Applier.apply", REFUSED, NOT_FOUND),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_known_fault_is_found(fault: Fault, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    must_find(fault, request, monkeypatch)
