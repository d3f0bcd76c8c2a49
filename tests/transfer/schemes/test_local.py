"""file://: what is below an allowed directory comes like any other file, and nothing else does."""

import errno
import hashlib
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fsdm import DataManager, Limits
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk, FileSource
from fsdm.model.errors import PolicyError, StoppedError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.file_range import FileRange
from fsdm.transfer.file_transfer import RECORD_BYTES
from fsdm.transfer.resume_record import Part, Parts
from fsdm.transfer.schemes import local
from fsdm.transfer.schemes.local import read_path
from tests.support import PATIENCE_S, Recorder, Source, eventually
from tests.support.chunks import an_id, bring, chunk_dir, content, failure, files_of
from tests.support.disks import mount
from tests.support.servers import InThread, fetch

__all__ = ["mount"]  # a fixture

DATA = content("a file of this machine", (9 << 20) + 1)  # three blocks of a copy, and one byte that is no whole one


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The directory that is allowed."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def file(inbox: Path) -> Path:
    return put(inbox / "a", DATA)


def put(path: Path, data: bytes) -> Path:
    """A file that has been at rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    rest(path)
    return path


def rest(path: Path) -> None:
    os.utime(path, (time.time(), time.time() - 60))


def a_fetcher(*directories: Path, **how: Any) -> HttpFetcher:
    return HttpFetcher(policy=Policy(directories=tuple(map(str, directories))), **how)


# --------------------------------------------------------------------------------------------------------- what passes


@pytest.mark.parametrize("size", [0, 1, 4096, len(DATA)])
def test_file_comes_as_it_is_and_stays_as_it_was(inbox: Path, path: Path, size: int) -> None:
    file = put(inbox / "deep" / "a b%20é", DATA[:size])
    before = file.stat()
    steps = Recorder()
    source = FileSource(url=file.as_uri(), sha256=hashlib.sha256(DATA[:size]).hexdigest())
    entry = a_fetcher(inbox).fetch(source, Part(str(path)), steps, Cancellation())
    assert path.read_bytes() == file.read_bytes() == DATA[:size]
    assert (entry.size, entry.blake3, entry.unproven) == (size, blake3(DATA[:size]).hexdigest(), None)
    assert steps.names == ["create", "fsync_file"]
    after = file.stat()
    assert (after.st_ino, after.st_nlink, after.st_mtime_ns, after.st_ctime_ns) == (
        *(before.st_ino, 1, before.st_mtime_ns, before.st_ctime_ns),
    )
    assert path.stat().st_ino != after.st_ino


def test_chunk_of_files_of_this_machine_and_a_mirror_is_published(data_dir: Path, inbox: Path, source: Source) -> None:
    here = put(inbox / "a", DATA)
    files = {
        "here": {"url": here.as_uri(), "size": len(DATA)},
        "there": [(inbox / "missing").as_uri(), source.put("/b", b"over the network")],
        "either": [source.put("/c", b"")[:-1] + "absent", here.as_uri()],
    }
    chunk = DataChunk(id=an_id(), dataset_id=an_id(), block_range=(0, 9), files=files)
    with DataManager(data_dir, limits=Limits(allow_dirs=(str(inbox),))) as dm:
        bring(dm, chunk)
    assert files_of(chunk_dir(data_dir, chunk) / "data") == {"here": DATA, "there": b"over the network", "either": DATA}


@pytest.mark.parametrize("url", ["file:///a/b%20c", "file://localhost/a/b%20c", "FILE://LOCALHOST/a/b%20c"])
def test_path_of_a_url_is_unquoted_once(url: str) -> None:
    assert read_path(url) == "/a/b c"
    assert read_path("file:///%2541%ff") == "/%41\udcff"


@pytest.mark.parametrize("url", ["file://other/a", "file://a", "file:///a%2F..%2Fb", "file://localhost:80/a"])
def test_what_names_no_file_of_this_machine_is_refused(inbox: Path, path: Path, url: str) -> None:
    with pytest.raises(TransferError) as caught:
        fetch(url, path, fetcher=a_fetcher(inbox))
    assert not caught.value.transient
    assert not path.exists()


# ----------------------------------------------------------------------------------------------------- what may not be


def refused(url: str, path: Path, *directories: Path, **how: Any) -> TransferError:
    """The error that keeps a URL from coming, and no byte of it."""
    with pytest.raises(TransferError) as caught:
        fetch(url, path, fetcher=a_fetcher(*directories, **how))
    assert not path.exists() or path.stat().st_size == 0
    return caught.value


def test_file_is_refused_where_no_directory_is_allowed(file: Path, path: Path) -> None:
    error = refused(file.as_uri(), path)
    assert isinstance(error, PolicyError)
    assert str(error).startswith(f"{file.as_uri()}: refused by the policy: ")
    assert "--allow-dir" in error.hint


@pytest.mark.parametrize("way", ["../secret", "%2e%2e/secret", "x/../../secret", "./../secret", "/../secret"])
def test_name_that_leads_up_is_refused(inbox: Path, path: Path, way: str) -> None:
    put(inbox.parent / "secret", b"hush")
    (inbox / "x").mkdir()
    assert isinstance(refused(f"{inbox.as_uri()}/{way}", path, inbox), PolicyError)


@pytest.mark.parametrize("link", ["a", "x/a", "x/y/a"])
def test_symbolic_link_is_not_followed_wherever_it_stands(inbox: Path, path: Path, link: str) -> None:
    """The link is at `a`, at `x`, or at `x/y`: to a file, or to a directory of files."""
    put(inbox.parent / "out" / "a", b"hush")
    put(inbox.parent / "out" / "y" / "a", b"hush")
    target = {"a": "../out/a", "x/a": "../out", "x/y/a": "../../out"}[link]
    place = inbox / (link if link == "a" else os.path.dirname(link))
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    assert (inbox / link).read_bytes() == b"hush", "the link is right"
    error = refused(f"{inbox.as_uri()}/{link}", path, inbox)
    assert "symbolic link" in f"{error} {error.hint}"


def test_link_that_takes_the_place_of_a_directory_meanwhile_is_not_followed(
    inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(inbox / "x" / "a", b"mine")
    put(inbox.parent / "out" / "a", b"hush")
    look = os.stat

    def swap(name: Any, *args: Any, **kw: Any) -> os.stat_result:
        """Between the look at the file and its opening, the directory on the way becomes a link."""
        found = look(name, *args, **kw)
        if name == "a" and not (inbox / "x").is_symlink():
            (inbox / "x").rename(inbox / "moved")
            (inbox / "x").symlink_to("../out")
        return found

    monkeypatch.setattr("os.stat", swap)
    fetch(f"{inbox.as_uri()}/x/a", path, fetcher=a_fetcher(inbox))
    assert (inbox / "x").is_symlink()
    assert path.read_bytes() == b"mine", "what was found is what is opened"


def test_link_that_takes_the_place_of_a_file_meanwhile_is_not_followed(
    inbox: Path, file: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(inbox.parent / "secret", b"hush")
    look = os.stat

    def swap(name: Any, *args: Any, **kw: Any) -> os.stat_result:
        found = look(name, *args, **kw)
        if name == "a" and not file.is_symlink():
            file.unlink()
            file.symlink_to("../secret")
        return found

    monkeypatch.setattr("os.stat", swap)
    refused(file.as_uri(), path, inbox)
    assert file.is_symlink()


def test_directory_that_is_allowed_may_be_a_link_of_the_owner(inbox: Path, file: Path, path: Path) -> None:
    (inbox.parent / "link").symlink_to("in")
    fetch(f"file://{inbox.parent}/link/a", path, fetcher=a_fetcher(inbox.parent / "link"))
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("kind", ["directory", "FIFO", "socket", "device"])
def test_what_is_no_regular_file_is_not_opened(inbox: Path, path: Path, kind: str) -> None:
    there = inbox / "a"
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "directory":
            there.mkdir()
        elif kind == "FIFO":
            os.mkfifo(there)
        elif kind == "socket":
            sock.bind(os.path.relpath(there))
        elif os.geteuid():
            pytest.skip("only root makes devices")
        else:
            os.mknod(there, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        assert "no regular file" in str(refused(there.as_uri(), path, inbox))


@pytest.mark.parametrize("name", ["config.toml", "chunks/x", "."])
def test_nothing_of_the_data_directory_is_given_away(tmp_path: Path, path: Path, name: str) -> None:
    data = tmp_path / "all" / "data"
    put(data / "config.toml", b"hush")
    put(data / "chunks" / "x", b"hush")
    url = f"{data.as_uri()}/{name}"
    for allowed in (tmp_path, data.parent, data, data / "chunks"):
        assert isinstance(refused(url, path, allowed, data_dir=str(data)), PolicyError)
    (tmp_path / "link").symlink_to("all/data")
    assert isinstance(
        refused(f"{tmp_path.as_uri()}/link/config.toml", path, tmp_path / "link", data_dir=str(data)), PolicyError
    )


def test_data_directory_is_known_by_another_mount_of_it(tmp_path: Path, path: Path, mount: Callable[..., None]) -> None:
    put(tmp_path / "data" / "config.toml", b"hush")
    (tmp_path / "in").mkdir()
    mount("--bind", tmp_path / "data", tmp_path / "in")
    url = f"{tmp_path.as_uri()}/in/config.toml"
    for allowed in (tmp_path, tmp_path / "in"):
        assert isinstance(refused(url, path, allowed, data_dir=str(tmp_path / "data")), PolicyError)


def test_reconciler_gives_nothing_of_its_own_directory_away(data_dir: Path) -> None:
    chunk = DataChunk(
        id=an_id(), dataset_id=an_id(), block_range=(0, 9), files={"a": f"{data_dir.absolute().as_uri()}/config.toml"}
    )
    with DataManager(data_dir, limits=Limits(allow_dirs=(str(data_dir.absolute().parent),))) as dm:
        put(data_dir / "config.toml", b"hush")
        dm.download_chunk(chunk)
        failed = eventually(lambda: failure(data_dir, chunk.id))
    assert "it is in the data directory" in failed["error"]


@pytest.mark.parametrize(
    ("code", "transient"), [(errno.EACCES, False), (errno.EIO, True), (errno.ESTALE, True), (errno.ENOENT, False)]
)
def test_error_of_the_source_is_of_the_file_and_not_of_our_disk(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch, code: int, transient: bool
) -> None:
    def fail(*args: Any, **kw: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(local, "opened", fail)
    error = refused(file.as_uri(), path, inbox)
    assert (error.transient, bool(error.hint)) == (transient, not transient)


# -------------------------------------------------------------------------------------------------- what is not at rest


def on_first_block(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> list[int]:
    """Have something happen once the first block is copied; how many bytes of each block came then."""
    append, came = FileRange.append_to, list[int]()

    def appended(self: FileRange, fd: int) -> None:
        append(self, fd)
        came.append(len(self))
        if len(came) == 1:
            do()

    monkeypatch.setattr(FileRange, "append_to", appended)
    return came


@pytest.mark.parametrize("change", ["written", "shorter", "longer", "back in time"])
def test_file_that_changes_while_it_is_read_is_not_taken(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def do() -> None:
        found = file.stat()
        with file.open("r+b") as opened:
            if change == "shorter":
                opened.truncate(5 << 20)
            else:
                opened.seek(8 << 20 if change != "longer" else len(DATA))
                opened.write(b"changed")
        if change == "back in time":
            os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))

    monkeypatch.setattr("fsdm.transfer.source_fetch.WORTH_BYTES", 1 << 30)  # it is not gone on with at once
    on_first_block(monkeypatch, do)
    with pytest.raises(TransferError, match=r"it changed|it became shorter") as caught:
        fetch(file.as_uri(), path, fetcher=a_fetcher(inbox))
    assert caught.value.transient


def test_file_that_has_just_been_written_is_taken_once_it_rests(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(b"new")
    waits = list[float]()
    monkeypatch.setattr(Cancellation, "wait", lambda self, seconds, event=None: waits.append(seconds))
    fetch(file.as_uri(), path, fetcher=a_fetcher(inbox))
    assert path.read_bytes() == b"new"
    assert any(0 < one <= local.REST_S for one in waits)


def test_files_that_are_waited_for_keep_no_others_waiting(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine is no server that may be down: more files than a trial has are looked at beside each other."""
    together, look = threading.Barrier(6), local._at_rest

    def at_rest(fd: int, stop: Cancellation) -> local.LocalFile:
        together.wait(PATIENCE_S)
        return look(fd, stop)

    monkeypatch.setattr(local, "_at_rest", at_rest)
    urls = [put(inbox / f"{number}", b"x").as_uri() for number in range(6)]
    fetcher = a_fetcher(inbox)
    threads = [
        InThread(lambda url=url, number=number: fetch(url, tmp_path / f"{number}", fetcher=fetcher))  # type: ignore[misc]
        for number, url in enumerate(urls)
    ]
    assert [thread.join().size for thread in threads] == [1] * 6  # type: ignore[attr-defined]


def test_file_that_is_being_written_is_not_taken(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(b"half")
    monkeypatch.setattr(Cancellation, "wait", lambda self, seconds, event=None: file.write_bytes(b"whole file"))
    error = refused(file.as_uri(), path, inbox)
    assert "being written" in str(error)
    assert error.transient


def test_file_of_the_future_keeps_nobody_waiting_and_is_joined_to_nothing(file: Path, inbox: Path, path: Path) -> None:
    os.utime(file, (time.time(), time.time() + 3600))
    assert fetch(file.as_uri(), path, fetcher=a_fetcher(inbox)).etag is None


# ------------------------------------------------------------------------------------------------- resume, stop, bounds


def interrupted(file: Path, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """What is left of a copy that was stopped after a block."""
    (tmp_path / "data").mkdir()
    parts, stop = Parts(str(tmp_path), ["a"], FileSystem()), Cancellation()
    with monkeypatch.context() as patch:
        came = on_first_block(patch, stop.set)
        with pytest.raises(StoppedError):
            a_fetcher(inbox).fetch(FileSource(url=file.as_uri()), parts.of("a"), FileSystem(), stop)
        assert came == [4 << 20], "it ended behind the block"
    parts.save()
    return Parts(str(tmp_path), ["a"], FileSystem())


def test_stopped_copy_is_gone_on_with(file: Path, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = interrupted(file, inbox, tmp_path, monkeypatch)
    came = on_first_block(monkeypatch, lambda: None)
    entry = a_fetcher(inbox).fetch(FileSource(url=file.as_uri()), parts.of("a"), FileSystem(), Cancellation())
    assert sum(came) == len(DATA) - (4 << 20)
    assert entry.blake3 == blake3(DATA).hexdigest() == blake3((tmp_path / "data" / "a").read_bytes()).hexdigest()


def test_stopped_copy_of_what_is_another_file_now_begins_anew(
    file: Path, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = interrupted(file, inbox, tmp_path, monkeypatch)
    other = DATA[::-1]
    put(inbox / "b", other).rename(file)
    assert len(DATA) > RECORD_BYTES
    entry = a_fetcher(inbox).fetch(FileSource(url=file.as_uri()), parts.of("a"), FileSystem(), Cancellation())
    assert (tmp_path / "data" / "a").read_bytes() == other
    assert entry.blake3 == blake3(other).hexdigest()


def test_block_that_fails_leaves_no_byte_out(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second block breaks in its middle, by an error of the source; the rest is asked for at once."""
    read, tries = FileRange._read, list[int]()
    monkeypatch.setattr(FileRange, "_copy", lambda self, fd, at: 0)

    def fail(self: FileRange, fd: int, at: int) -> int:
        tries.append(at)
        if len(tries) == 7:
            raise TransferError("it cannot be read", transient=True)
        return read(self, fd, at)

    monkeypatch.setattr(FileRange, "_read", fail)
    assert fetch(file.as_uri(), path, fetcher=a_fetcher(inbox)).blake3 == blake3(DATA).hexdigest()
    assert path.read_bytes() == DATA
    assert tries[6:8] == [6 << 20, 4 << 20], "the block is read again from its beginning"


def test_wrong_digest_is_never_published(file: Path, inbox: Path, path: Path) -> None:
    with pytest.raises(TransferError, match="the sha256 is") as caught:
        fetch(file.as_uri(), path, fetcher=a_fetcher(inbox), sha256="0" * 64)
    assert caught.value.cause == "digest"


def test_rate_holds_for_files_of_this_machine(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = a_fetcher(inbox, bytes_per_s=1e6)
    waited = list[int]()
    monkeypatch.setattr(fetcher.rate, "took", lambda count, wait: waited.append(count) or 0.0)
    fetch(file.as_uri(), path, fetcher=fetcher)
    assert sum(waited) == len(DATA)
    assert max(waited) <= 50_000, "no more at once than a rate's block"
    assert path.read_bytes() == DATA
    assert fetcher.received_bytes == len(DATA)


def test_stop_ends_the_wait_of_a_rate(file: Path, inbox: Path, path: Path) -> None:
    stop, fetcher, began = Cancellation(), a_fetcher(inbox, bytes_per_s=1.0), threading.Event()
    took = fetcher.rate.took

    def tell(count: int, wait: Callable[[float], object]) -> float:
        began.set()
        return took(count, wait)

    fetcher.rate.took = tell  # type: ignore[method-assign]
    thread = InThread(lambda: fetch(file.as_uri(), path, stop, fetcher=fetcher))
    assert began.wait(PATIENCE_S)
    stop.set()
    assert isinstance(thread.join(), StoppedError)


# ---------------------------------------------------------------------------------------------------------- how it goes


def by_reading(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    patch.setattr("os.copy_file_range", fail)


def test_file_comes_where_the_kernel_does_not_copy(
    file: Path, inbox: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_reading(monkeypatch)
    assert fetch(file.as_uri(), path, fetcher=a_fetcher(inbox)).blake3 == blake3(DATA).hexdigest()


def test_full_disk_is_an_error_of_the_disk_whatever_copies(
    file: Path, inbox: Path, tmp_path: Path, mount: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    mount("-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path / "small")
    monkeypatch.setattr("fsdm.transfer.file_transfer.free_bytes", lambda path: 1 << 40)
    monkeypatch.setattr("fsdm.transfer.sink._fallocate", lambda *_: 0)
    for patch in (lambda _: None, by_reading):
        with monkeypatch.context() as m:
            patch(m)
            with pytest.raises(OSError, match="No space left"):
                fetch(file.as_uri(), tmp_path / "small" / "a", fetcher=a_fetcher(inbox))


def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path, mount: Callable[..., None]) -> None:
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as opened:
        opened.truncate(400 << 20)
    try:
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"there is no mkfs.xfs: {e}")
    mount("-o", "loop", image, disk)
    file = put(disk / "in" / "a", DATA)
    entry = fetch(file.as_uri(), disk / "copy", fetcher=a_fetcher(disk / "in"))
    assert entry.blake3 == blake3(DATA).hexdigest()
    used = subprocess.run(["filefrag", "-v", disk / "copy"], check=True, capture_output=True, text=True).stdout
    extents = [line for line in used.splitlines() if line.split(":")[0].strip().isdigit()]
    assert extents
    assert all("shared" in line for line in extents), used
    file.write_bytes(b"another")
    assert (disk / "copy").read_bytes() == DATA, "what is written to one of them is not in the other"
