"""Who may do what, with real users: an owner that reconciles, askers, readers, and a stranger (PROTOCOL.md, "Threats").

Each acts in a forked child that has become that user. Only root may do that: elsewhere these tests are skipped.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pickle
import select
import shutil
import stat
import tempfile
import threading
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

import fsdm.status.chunk_status  # a child may not be able to read our modules
from fsdm import DataManager
from fsdm.cli.config import read_config
from fsdm.client import Client
from fsdm.concurrency.rate_limit import Rate
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.layout import DATA, Layout
from fsdm.store.data_dir import open_data_dir
from fsdm.store.flock import intents_lock
from fsdm.store.markers import CLIENT_WAIT_S, place_delete, place_want
from fsdm.verify.bulk import BulkVerify
from tests.support.chunks import an_id, chunk_dir, entries, failure, files_of, flip
from tests.support.source import expected
from tests.support.waiting import PATIENCE_S, eventually, wait_for_a_tick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm import DataChunk
    from tests.support.source import Source

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

READ, ASK = 61_001, 61_002


@dataclass(frozen=True)
class User:
    """Somebody, by numbers: no account is needed."""

    uid: int
    groups: tuple[int, ...]
    umask: int = 0o022


OWNER = User(60_001, (READ, ASK), 0o027)
ALICE = User(60_002, (READ, ASK))
BOB = User(60_003, (READ, ASK))
READER = User(60_004, (READ,))
STRANGER = User(60_005, (65_534,))


@contextmanager
def acting(user: User, work: Callable[[], Any], *, until: Callable[[], object] = lambda: None) -> Iterator[Any]:
    """What `work` returns to that user, in a child that lives to the end of the block and does `until` there."""
    told, tell = os.pipe()
    ends, end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: none of ours holds a lock here
        pid = os.fork()
    if pid == 0:
        os.close(end)
        _become(user, work, until, tell, ends)
    os.close(tell)
    os.close(ends)
    try:
        with os.fdopen(told, "rb") as answer:
            assert select.select([answer], [], [], 3 * PATIENCE_S)[0], "the child says nothing"
            result = pickle.load(answer)
        if isinstance(result, BaseException):
            raise result
        yield result
    finally:
        os.close(end)
        _, status = os.waitpid(pid, 0)
    assert status == 0


def _become(user: User, work: Callable[[], Any], until: Callable[[], object], tell: int, ends: int) -> None:
    code = 1
    try:
        os.setgroups(user.groups)
        os.setgid(user.groups[0])
        os.setuid(user.uid)
        os.umask(user.umask)
        try:
            result = work()
        except Exception as e:
            result = type(e)(str(e))
        os.write(tell, pickle.dumps(result))
        os.read(ends, 1)
        until()
        code = 0
    finally:
        os._exit(code)


def as_user(user: User, work: Callable[[], Any]) -> Any:
    """What `work` returns to that user; what it raises, raised here."""
    with acting(user, work) as result:
        return result


@contextmanager
def reconciling(root: Path) -> Iterator[None]:
    """The owner reconciles."""
    managers: list[DataManager] = []

    def start() -> bool:
        managers.append(DataManager(root))
        return managers[0].reconciling

    with acting(OWNER, start, until=lambda: managers.pop().close()) as reconciles:
        assert reconciles
        yield


@pytest.fixture
def root() -> Iterator[Path]:
    """A data directory that is set up as PROTOCOL.md says."""
    parent = Path(tempfile.mkdtemp(prefix="fsdm-users-"))
    parent.chmod(0o711)
    root = parent / "data"
    root.mkdir()
    os.chown(root, OWNER.uid, READ)
    root.chmod(0o2750)
    as_user(OWNER, lambda: open_data_dir(root).root)
    for name in ("want", "delete", "verify"):
        os.chown(root / name, -1, ASK)
        (root / name).chmod(0o2775)
    yield root
    shutil.rmtree(parent)


def client(root: Path) -> Client:
    return Client(root)


def download(root: Path, chunk: DataChunk) -> Callable[[], None]:
    return lambda: client(root).download_chunk(chunk)


def delete(root: Path, chunk_id: str) -> Callable[[], None]:
    return lambda: client(root).delete_chunk(chunk_id)


def settled(root: Path, chunk: DataChunk) -> bool:
    """Whether the chunk is available once nothing is pending for it."""
    eventually(lambda: not (root / "want" / chunk.id).exists() and not (root / "delete" / chunk.id).exists())
    return chunk_dir(root, chunk).exists()


def written(path: Path) -> None:
    with path.open("r+b" if path.is_file() else "wb"):
        pass


def refused(user: User, *work: Callable[[], object]) -> list[bool]:
    """Of each piece of work, whether the user was refused it."""

    def attempt() -> list[bool]:
        found = []
        for one in work:
            try:
                one()
            except PermissionError:
                found.append(True)
            else:
                found.append(False)
        return found

    seen: list[bool] = as_user(user, attempt)
    return seen


# --------------------------------------------------------------------------------------------------------- who may ask


def test_askers_ask_and_readers_read_and_hold(root: Path, source: Source) -> None:
    chunk = source.chunk()
    with reconciling(root):
        as_user(ALICE, download(root, chunk))
        assert settled(root, chunk)

        def look() -> tuple[object, ...]:
            with client(root) as mine, mine.find_chunk(chunk.dataset_id, 0) as ref:  # type: ignore[union-attr]
                return mine.list_chunks(), files_of(ref.path), mine.status().count("available"), mine.wait(chunk.id, 1)

        for user in (OWNER, ALICE, READER):
            assert as_user(user, look) == ([chunk.id], expected(chunk, source), 1, True)
        as_user(BOB, delete(root, chunk.id))
        assert not settled(root, chunk)


def test_reader_holds_a_deleted_chunk_as_long_as_it_lives(root: Path, source: Source) -> None:
    chunk = source.chunk()
    held: list[object] = []
    with reconciling(root):
        as_user(ALICE, download(root, chunk))
        assert settled(root, chunk)

        def hold() -> None:
            held.append(client(root).find_chunk(chunk.dataset_id, 0))

        with acting(READER, hold):
            as_user(BOB, delete(root, chunk.id))
            eventually(lambda: as_user(ALICE, lambda: client(root).status().chunks[chunk.id].state) == "retiring")
            assert files_of(chunk_dir(root, chunk) / DATA) == expected(chunk, source)
        assert not settled(root, chunk)


def test_users_who_do_not_own_it_change_only_intents(root: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with reconciling(root):
        as_user(ALICE, download(root, chunk))
        assert settled(root, chunk)
    place = chunk_dir(root, chunk)
    name = next(iter(chunk.files))
    secret: list[Callable[[], object]] = [(place / "WANT").read_bytes, (place / "WANT").unlink]
    assert refused(ALICE, *secret) == refused(READER, *secret) == [True, True], "its URLs may carry a secret"
    attempts: list[Callable[[], object]] = [
        *(lambda path=root / one / "planted": written(path) for one in (".", "chunks", "partial", "failed", "trash")),
        *(lambda path=root / one: written(path) for one in ("LOCK", "fsdm.json", "CACHEDIR.TAG")),
        *(lambda path=path: written(path) for path in (place / "READY", place / DATA / name, place / DATA / "new")),
        *(lambda path=path: path.unlink() for path in (place / "READY", place / DATA / name, root / "LOCK")),
        lambda: place.rename(root / "trash" / "gone"),
        lambda: place.rename(root / "want" / "stolen"),
        lambda: place.chmod(0o777),
        lambda: (root / "want").rename(root / "gone"),
        lambda: (root / "want").chmod(0o777),
        lambda: os.utime(place),
        lambda: os.link(place / DATA / name, root / "want" / an_id()),
    ]
    for user in (ALICE, READER):
        assert refused(user, *attempts) == [True] * len(attempts)
    marks: list[Callable[[], object]] = [
        lambda: written(root / "want" / an_id()),
        lambda: written(root / "delete" / an_id()),
        lambda: written(root / "verify" / an_id()),
        lambda: os.mkdir(root / "want" / "x"),
    ]
    assert refused(READER, *marks) == [True] * len(marks)
    assert refused(ALICE, *marks) == [False] * len(marks)
    with pytest.raises(DataDirectoryError, match="cannot place"):
        as_user(READER, download(root, chunk))
    with pytest.raises(DataDirectoryError, match="cannot place"):
        as_user(READER, delete(root, chunk.id))


def test_asker_has_a_damaged_chunk_mended_and_a_reader_finds_it(root: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with reconciling(root):
        as_user(ALICE, download(root, chunk))
        assert settled(root, chunk)
        flip(str(chunk_dir(root, chunk) / DATA / next(iter(chunk.files))))

        def find() -> list[str]:
            with client(root) as mine:
                run = BulkVerify(mine.layout, mine.ref_at, rate=Rate(None), jobs=1).run(mine.available_places())
                return [str(wrong) for one in run for wrong in one.wrong]

        assert len(as_user(READER, find)) == 1
        with pytest.raises(DataDirectoryError, match="cannot place"):
            as_user(READER, lambda: client(root).verify_chunk(chunk.id))
        as_user(BOB, lambda: client(root).verify_chunk(chunk.id))
        assert as_user(BOB, lambda: client(root).wait(chunk.id, PATIENCE_S))
        assert as_user(READER, find) == []


def test_stranger_does_not_get_in(root: Path) -> None:
    assert refused(STRANGER, lambda: os.listdir(root), lambda: os.stat(root / "want"), lambda: written(root / "x")) == [
        True,
        True,
        True,
    ]
    with pytest.raises(DataDirectoryError, match="may not be read"):
        as_user(STRANGER, lambda: client(root))
    with pytest.raises(DataDirectoryError, match=f"{root} cannot be looked into: Permission denied"):
        as_user(STRANGER, lambda: read_config(Layout(root)))


def test_unreadable_configuration_is_named_in_the_error(root: Path) -> None:
    (root / "config.toml").touch(mode=0o600)
    with pytest.raises(InvalidInputError, match=r"config\.toml cannot be read: Permission denied"):
        as_user(READER, lambda: read_config(Layout(root)))


@pytest.mark.parametrize("user", [ALICE, READER])
def test_only_the_owner_reconciles(root: Path, user: User) -> None:
    with pytest.raises(DataDirectoryError, match="LOCK cannot be opened"):
        as_user(user, lambda: DataManager(root).close())
    with reconciling(root), pytest.raises(DataDirectoryError, match="LOCK cannot be opened"):
        as_user(user, lambda: DataManager(root).close())


# --------------------------------------------------------------------------------------------- askers beside each other


def test_every_asker_overrules_every_other_ones_intents(root: Path, source: Source) -> None:
    chunk = source.chunk()
    want, deleted = root / "want" / chunk.id, root / "delete" / chunk.id

    def standing() -> list[int | None]:
        return [path.stat().st_uid if path.exists() else None for path in (want, deleted)]

    for user, ask, left in [
        (ALICE, download(root, chunk), [ALICE.uid, None]),
        (BOB, download(root, chunk), [BOB.uid, None]),
        (ALICE, delete(root, chunk.id), [None, ALICE.uid]),
        (BOB, delete(root, chunk.id), [None, BOB.uid]),
        (ALICE, download(root, chunk), [ALICE.uid, None]),
    ]:
        as_user(user, ask)
        assert standing() == left
    assert [name for name in os.listdir(root / "delete") if name.startswith(".")] == []
    with reconciling(root):
        assert settled(root, chunk)


def test_with_a_sticky_bit_the_later_intent_still_wins(root: Path, source: Source) -> None:
    for name in ("want", "delete"):
        (root / name).chmod(0o3775)
    gone, here = source.chunk(), source.chunk(start=20, end=30)
    as_user(ALICE, download(root, gone))
    as_user(BOB, delete(root, gone.id))
    as_user(ALICE, delete(root, here.id))
    wait_for_a_tick(str(root / "delete" / here.id))  # within one, the reconciler would have to see which came first
    as_user(BOB, download(root, here))
    assert entries(root / "want") == sorted([gone.id, here.id])
    with reconciling(root):
        assert settled(root, here)


def test_want_that_the_owner_may_not_read_overrules_no_delete(root: Path, source: Source) -> None:
    private = source.chunk()
    want, deleted = root / "want" / private.id, root / "delete" / private.id
    as_user(BOB, deleted.touch)
    wait_for_a_tick(str(deleted))  # the want is the later one
    as_user(User(ALICE.uid, ALICE.groups, 0o077), lambda: want.write_bytes(private.to_json()))
    with reconciling(root):
        told = eventually(lambda: failure(root, private.id))
        assert (told["kind"], "may not read" in told["error"], "chmod" in told["hint"]) == ("want", True, True)
        eventually(lambda: not deleted.exists())

        def mend() -> None:
            want.chmod(0o644)
            os.utime(want)

        as_user(ALICE, mend)
        assert settled(root, private)


def test_marker_of_another_user_that_a_crash_left_aside_is_put_back(root: Path, source: Source) -> None:
    chunk = source.chunk()
    as_user(ALICE, download(root, chunk))
    (root / "want" / chunk.id).rename(root / "want" / f".judged-1_2_3_{chunk.id}")
    with reconciling(root):
        eventually(lambda: chunk_dir(root, chunk).exists())
        eventually(lambda: os.listdir(root / "want") == [])


# ----------------------------------------------------------------------------------------- locks, and who sits on them


def test_lock_of_intents_works_between_members_of_a_group(root: Path) -> None:
    held = ExitStack()

    def take() -> bool:
        return held.enter_context(intents_lock(Layout(root), 0.0))

    with acting(ALICE, take) as got:
        assert got
        assert as_user(BOB, take) is False
    assert as_user(BOB, take) is True


def test_holder_of_the_lock_of_intents_stops_no_client(root: Path, source: Source) -> None:
    chunks = [source.chunk(start=at, end=at + 1) for at in range(5)]
    descriptors: list[int] = []

    def sit() -> None:
        descriptors.append(os.open(root / "want", os.O_RDONLY))
        fcntl.flock(descriptors[0], fcntl.LOCK_EX)

    def ask() -> list[tuple[bool, float]]:
        tried: list[tuple[bool, float]] = []

        @contextmanager
        def lock(layout: Layout, wait_s: float) -> Iterator[bool]:
            with intents_lock(layout, wait_s) as got:
                tried.append((got, wait_s))
                yield got

        with mock.patch("fsdm.store.markers.intents_lock", lock):
            for chunk in chunks:
                place_want(Layout(root), chunk)
                place_delete(Layout(root), chunk.id)
                place_want(Layout(root), chunk)
        return tried

    with acting(READER, sit), reconciling(root):
        assert as_user(ALICE, ask) == [(False, CLIENT_WAIT_S)] * 3 * len(chunks)
        assert CLIENT_WAIT_S < 0.01
        assert all(settled(root, chunk) for chunk in chunks)


@pytest.mark.parametrize(("name", "mode"), [("LOCK", 0o600), ("trash", 0o700)])
def test_reader_keeps_the_next_reconciler_away_only_where_it_may_open_the_lock(
    root: Path, name: str, mode: int
) -> None:
    descriptors: list[int] = []

    def sit() -> None:
        descriptors.append(os.open(root / name, os.O_RDONLY))
        fcntl.flock(descriptors[0], fcntl.LOCK_EX)

    with reconciling(root):
        assert json.loads(as_user(READER, lambda: client(root).status().reconciler))["pid"]
    with acting(READER, sit):
        assert as_user(OWNER, lambda: DataManager(root).reconciling) is False
    (root / name).chmod(mode)
    with pytest.raises(PermissionError):
        as_user(READER, sit)
    with reconciling(root):
        assert ("not known" in as_user(READER, lambda: client(root).status().reconciler)) == (name == "LOCK")
    assert stat.S_IMODE((root / name).stat().st_mode) == mode


# ----------------------------------------------------------------------------------------------- an asker that floods


def test_markers_that_are_none_by_the_thousand_hold_up_no_intent(root: Path, source: Source) -> None:
    def flood() -> None:
        for number in range(500):
            name = an_id(10**6 + number)
            os.mkfifo(root / "want" / name)
            os.mkdir(root / "delete" / name)
            for path in (root / "want" / f"no id {number}", root / "delete" / f".judged-{number}"):
                path.touch()

    chunk = source.chunk()
    with reconciling(root):
        as_user(ALICE, flood)
        as_user(BOB, download(root, chunk))
        assert settled(root, chunk)


def test_want_rewritten_all_the_time_holds_up_no_other(root: Path, source: Source) -> None:
    restless, other = source.chunk(), source.chunk(start=20, end=30)
    marker = root / "want" / restless.id
    text = restless.to_json().rstrip()[:-1]
    resting, rewriting = threading.Event(), threading.Event()

    def rewrite() -> None:
        for number in itertools.count():
            if resting.is_set():
                break
            marker.write_bytes(text + b', "padding": "%d%s"}' % (number, b"x" * 900_000))
            rewriting.set()
        marker.write_bytes(text + b"}")

    thread = threading.Thread(target=rewrite)

    def begin() -> bool:
        thread.start()
        return rewriting.wait(PATIENCE_S)

    def rest() -> None:
        resting.set()
        thread.join()

    with reconciling(root):
        with acting(ALICE, begin, until=rest) as begun:
            assert begun
            as_user(BOB, download(root, other))
            assert settled(root, other)
        assert settled(root, restless)


assert fsdm.status.chunk_status
