"""Users who ask beside each other, sit on locks, or flood, and hold up no other."""

import fcntl
import itertools
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from fsdm import Client, DataManager
from fsdm.model.layout import Layout
from fsdm.store.flock import intents_lock
from fsdm.store.markers import CLIENT_WAIT_S, place_delete, place_want
from tests.support import PATIENCE_S, Source, eventually, wait_for_a_tick
from tests.support.chunks import an_id, chunk_dir, entries, failure
from tests.support.users import ALICE, BOB, OWNER, READER, User, delete, download, reconciling, settled


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
        user.does(ask)
        assert standing() == left
    assert [name for name in os.listdir(root / "delete") if name.startswith(".")] == []
    with reconciling(root):
        assert settled(root, chunk)


def test_with_a_sticky_bit_the_later_intent_still_wins(root: Path, source: Source) -> None:
    for name in ("want", "delete"):
        (root / name).chmod(0o3775)
    gone, here = source.chunk(), source.chunk(start=20, end=30)
    ALICE.does(download(root, gone))
    BOB.does(delete(root, gone.id))
    ALICE.does(delete(root, here.id))
    wait_for_a_tick(str(root / "delete" / here.id))  # within one, the reconciler would have to see which came first
    BOB.does(download(root, here))
    assert entries(root / "want") == sorted([gone.id, here.id])
    with reconciling(root):
        assert settled(root, here)


def test_want_that_the_owner_may_not_read_overrules_no_delete(root: Path, source: Source) -> None:
    private = source.chunk()
    want, deleted = root / "want" / private.id, root / "delete" / private.id
    BOB.does(deleted.touch)
    wait_for_a_tick(str(deleted))  # the want is the later one
    User(ALICE.uid, ALICE.groups, 0o077).does(lambda: want.write_bytes(private.to_json()))
    with reconciling(root):
        told = eventually(lambda: failure(root, private.id))
        assert (told["kind"], "may not read" in told["error"], "chmod" in told["hint"]) == ("want", True, True)
        eventually(lambda: not deleted.exists())

        def mend() -> None:
            want.chmod(0o644)
            os.utime(want)

        ALICE.does(mend)
        assert settled(root, private)


def test_marker_of_another_user_that_a_crash_left_aside_is_put_back(root: Path, source: Source) -> None:
    chunk = source.chunk()
    ALICE.does(download(root, chunk))
    (root / "want" / chunk.id).rename(root / "want" / f".judged-1_2_3_{chunk.id}")
    with reconciling(root):
        eventually(lambda: chunk_dir(root, chunk).exists())
        eventually(lambda: os.listdir(root / "want") == [])


def sit_on(path: Path) -> Callable[[], None]:
    """Have a child hold an exclusive lock as long as it lives."""
    return lambda: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)


def test_lock_of_intents_works_between_members_of_a_group(root: Path) -> None:
    held = ExitStack()

    def take() -> bool:
        return held.enter_context(intents_lock(Layout(root), 0.0))

    with ALICE.acting(take) as got:
        assert got
        assert BOB.does(take) is False
    assert BOB.does(take) is True


def test_holder_of_the_lock_of_intents_stops_no_client(root: Path, source: Source) -> None:
    chunks = [source.chunk(start=at, end=at + 1) for at in range(5)]

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

    with READER.acting(sit_on(root / "want")), reconciling(root):
        assert ALICE.does(ask) == [(False, CLIENT_WAIT_S)] * 3 * len(chunks)
        assert CLIENT_WAIT_S < 0.01
        assert all(settled(root, chunk) for chunk in chunks)


@pytest.mark.parametrize(("name", "mode"), [("LOCK", 0o600), ("trash", 0o700)])
def test_reader_blocks_a_reconciler_only_where_it_may_open_the_lock(root: Path, name: str, mode: int) -> None:
    with reconciling(root):
        assert json.loads(READER.does(lambda: Client(root).status().reconciler))["pid"]
    with READER.acting(sit_on(root / name)):
        assert OWNER.does(lambda: DataManager(root).reconciling) is False
    (root / name).chmod(mode)
    with pytest.raises(PermissionError):
        READER.does(sit_on(root / name))
    with reconciling(root):
        assert ("not known" in READER.does(lambda: Client(root).status().reconciler)) == (name == "LOCK")
    assert stat.S_IMODE((root / name).stat().st_mode) == mode


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
        ALICE.does(flood)
        BOB.does(download(root, chunk))
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
        with ALICE.acting(begin, until=rest) as begun:
            assert begun
            BOB.does(download(root, other))
            assert settled(root, other)
        assert settled(root, restless)
