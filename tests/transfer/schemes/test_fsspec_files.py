"""Files by fsspec: as its file systems give them, with nothing of this machine and no word of theirs."""

import sys
import traceback
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
from blake3 import blake3

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import PolicyError, StoppedError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.schemes import fsspec_files, registry
from tests.support import PATIENCE_S
from tests.support.chunks import content
from tests.support.servers import InThread, fetch, get

fsspec = pytest.importorskip("fsspec")
memory = pytest.importorskip("fsspec.implementations.memory")

DATA = content("by fsspec", (2 << 20) + 1)
URL = "tagged://shelf/a b#c"
NAMES = ("tagged", "memory", "local", "zip", "simplecache", "nonesuch", "git")
ALL = Policy(sources=tuple(f"{name}://*" for name in NAMES))


class Tagged(memory.MemoryFileSystem):
    """Gives tags, and remembers what it has said; `on` has what is done, once, at a call."""

    protocol = "tagged"
    store: ClassVar[dict[str, Any]] = {}
    cachable = False
    tag: str | None = "1"
    on: ClassVar[dict[str, Any]] = {}
    listed: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("tagged://", "memory://"))

    def info(self, path: str, **how: Any) -> dict[str, Any]:
        self.on.pop("info", lambda: None)()
        if path not in self.listed:
            found = super().info(path, **how)
            self.listed[path] = {**found, "ETag": self.tag} if self.tag else found
        return self.listed[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.listed.clear()

    def _open(self, path: str, *args: Any, **how: Any) -> Any:
        self.on.pop("open", lambda: None)()
        return super()._open(path, *args, **how)


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> type[Tagged]:
    monkeypatch.setattr(Tagged, "on", {})
    monkeypatch.setattr(Tagged, "listed", {})
    monkeypatch.setattr(Tagged, "tag", "1")
    monkeypatch.setattr(Tagged, "store", {})
    fsspec.register_implementation("tagged", Tagged, clobber=True)
    Tagged().pipe("/shelf/a b#c", DATA)
    return Tagged


def by_fsspec(**how: Any) -> HttpFetcher:
    return HttpFetcher(policy=ALL, **how)


def test_file_comes_as_its_file_system_has_it(path: Path) -> None:
    entry = fetch(URL, path, fetcher=by_fsspec())
    assert path.read_bytes() == DATA
    assert (entry.size, entry.blake3) == (len(DATA), blake3(DATA).hexdigest())


def test_part_comes_under_a_tag_and_without_one_there_is_none_to_join(system: type[Tagged]) -> None:
    engine = by_fsspec().schemes
    assert get(engine, URL, {"Range": "bytes=2097150-"}) == (206, DATA[2097150:])
    heads = list[Any]()
    engine.get(URL, {}, Cancellation(), heads.append)
    system.tag = "2"
    engine.get(URL, {}, Cancellation(), heads.append)
    system.tag = None
    engine.get(URL, {}, Cancellation(), heads.append)
    first, second, third = (head.validator for head in heads)
    assert first != second
    assert None not in {first, second}
    assert third is None


def test_file_that_changes_while_it_is_read_is_not_taken(
    system: type[Tagged], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdm.transfer.source_fetch.WORTH_BYTES", 1 << 30)  # it is not asked for again at once
    system.on["open"] = lambda: setattr(system, "tag", "2")
    with pytest.raises(TransferError, match="it changed while it was read") as caught:
        fetch(URL, path, fetcher=by_fsspec(), size=len(DATA))
    assert caught.value.transient


@pytest.mark.parametrize(
    ("error", "said", "transient"),
    [
        (FileNotFoundError("hush"), "there is no such file", False),
        (PermissionError("hush"), "its file system failed: PermissionError", False),
        (RuntimeError("hush"), "its file system failed: RuntimeError", True),
        (OSError(28, "hush"), "its file system failed: OSError", True),
        (ImportError("hush", name="paramiko"), "its file system cannot be had", True),
    ],
)
def test_error_of_a_file_system_is_told_without_its_words(
    system: type[Tagged], path: Path, error: Exception, said: str, transient: bool
) -> None:
    def fail() -> None:
        raise error

    system.on["info"] = fail
    with pytest.raises(TransferError) as caught:
        fetch(URL, path, fetcher=by_fsspec())
    assert str(caught.value) == f"tagged://shelf/a b: {said}"
    assert caught.value.transient is transient
    assert "hush" not in str(caught.value) + caught.value.hint
    assert "hush" not in "".join(traceback.format_exception(caught.value, chain=False))


def test_stop_returns_at_once_whatever_a_file_system_does(system: type[Tagged], path: Path) -> None:
    waits, gate, stop = Event(), Event(), Cancellation()
    system.on["open"] = lambda: (waits.set(), gate.wait(PATIENCE_S))
    thread = InThread(lambda: fetch(URL, path, stop, fetcher=by_fsspec()))
    assert waits.wait(PATIENCE_S)
    stop.set()
    assert isinstance(thread.join(), StoppedError)
    gate.set()


def test_call_that_does_not_return_is_an_error_that_may_pass(
    system: type[Tagged], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Event()
    system.on["open"] = lambda: gate.wait(PATIENCE_S)
    monkeypatch.setattr(fsspec_files, "TIMEOUT_S", 0.01)
    with pytest.raises(TransferError, match=r"no answer within 0\.01 s") as caught:
        fetch(URL, path, fetcher=by_fsspec())
    assert (caught.value.transient, caught.value.cause) == (True, "timeout")
    gate.set()


@pytest.mark.parametrize("scheme", ["local", "zip", "simplecache", "git"])
def test_file_system_before_another_or_of_this_machine_is_refused(tmp_path: Path, path: Path, scheme: str) -> None:
    (tmp_path / "secret").write_bytes(b"hush")
    with pytest.raises(TransferError, match=f"nothing installed here fetches {scheme}://"):
        fetch(f"{scheme}://{tmp_path}/secret", path, fetcher=by_fsspec())


def test_local_file_system_by_another_name_and_a_chain_are_refused(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    (tmp_path / "secret").write_bytes(b"hush")
    fsspec.register_implementation("tagged", LocalFileSystem, clobber=True)
    monkeypatch.setattr(LocalFileSystem, "protocol", ("file", "local", "tagged"))
    for url in (f"tagged://{tmp_path}/secret", f"memory://a::file://{tmp_path}/secret"):
        with pytest.raises(PolicyError, match="refused by the policy"):
            fetch(url, path, fetcher=by_fsspec())
    assert not path.exists()


def test_source_that_hides_its_addresses_is_not_asked_where_they_matter(path: Path) -> None:
    with pytest.raises(PolicyError, match="--deny-private"):
        fetch(URL, path, fetcher=HttpFetcher(policy=Policy((), True, ALL.sources)))


def test_directory_is_no_file(path: Path) -> None:
    with pytest.raises(TransferError, match="it is no file"):
        fetch("tagged://shelf", path, fetcher=by_fsspec())


def test_without_fsspec_nothing_is_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.registry", None)
    with pytest.raises(TransferError, match="nothing installed here fetches memory://") as caught:
        fetch("memory://a", path, fetcher=by_fsspec())
    assert "fsdm[fsspec]" in caught.value.hint
    assert registry.knows("memory") is False
