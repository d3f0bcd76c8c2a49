"""Rights of real users: the owner, those who ask, readers, and a stranger (PROTOCOL.md, "Threats")."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm import Client, DataManager
from fsdm.cli.config import read_config
from fsdm.concurrency.rate_limit import Rate
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.layout import DATA, VERIFIED, Layout
from fsdm.verify.bulk import BulkVerify, Verified
from tests.support import PATIENCE_S, Source, eventually, expected
from tests.support.chunks import an_id, chunk_dir, files_of, flip
from tests.support.users import ALICE, BOB, OWNER, READER, STRANGER, User, brought, download, reconciling, settled


def written(path: Path) -> None:
    with path.open("r+b" if path.is_file() else "wb"):
        pass


def test_askers_ask_and_readers_read_and_hold(root: Path, source: Source) -> None:
    chunk = source.chunk()
    with reconciling(root):
        brought(root, chunk)

        def look() -> tuple[object, ...]:
            with Client(root) as mine, mine.find_chunk(chunk.dataset_id, 0) as ref:
                return mine.list_chunks(), files_of(ref.path), mine.status().count("available"), mine.wait(chunk.id, 1)

        for user in (OWNER, ALICE, READER):
            assert user.does(look) == ([chunk.id], expected(chunk, source), 1, True)
        BOB.does(lambda: Client(root).delete_chunk(chunk.id))
        assert not settled(root, chunk)


def test_reader_holds_a_deleted_chunk_as_long_as_it_lives(root: Path, source: Source) -> None:
    chunk = source.chunk()
    held: list[object] = []
    with reconciling(root):
        brought(root, chunk)

        def hold() -> None:
            held.append(Client(root).find_chunk(chunk.dataset_id, 0))

        with READER.acting(hold):
            BOB.does(lambda: Client(root).delete_chunk(chunk.id))
            eventually(lambda: ALICE.does(lambda: Client(root).status().chunks[chunk.id].state) == "retiring")
            assert files_of(chunk_dir(root, chunk) / DATA) == expected(chunk, source)
        assert not settled(root, chunk)


def test_users_who_do_not_own_it_change_only_intents(root: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with reconciling(root):
        brought(root, chunk)
    place = chunk_dir(root, chunk)
    name = next(iter(chunk.files))
    secret: list[Callable[[], object]] = [(place / "WANT").read_bytes, (place / "WANT").unlink]
    assert ALICE.refused(*secret) == READER.refused(*secret) == [True, True], "its URLs may carry a secret"
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
        assert user.refused(*attempts) == [True] * len(attempts)
    marks: list[Callable[[], object]] = [
        lambda: written(root / "want" / an_id()),
        lambda: written(root / "delete" / an_id()),
        lambda: written(root / "verify" / an_id()),
        lambda: os.mkdir(root / "want" / "x"),
    ]
    assert READER.refused(*marks) == [True] * len(marks)
    assert ALICE.refused(*marks) == [False] * len(marks)
    with pytest.raises(DataDirectoryError, match="cannot place"):
        READER.does(download(root, chunk))
    with pytest.raises(DataDirectoryError, match="cannot place"):
        READER.does(lambda: Client(root).delete_chunk(chunk.id))


def test_asker_has_a_damaged_chunk_mended_and_a_reader_finds_it(root: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with reconciling(root):
        brought(root, chunk)
        flip(str(chunk_dir(root, chunk) / DATA / next(iter(chunk.files))))

        def find() -> list[str]:
            with Client(root) as mine:
                run = BulkVerify(mine.layout, mine.ref_at, rate=Rate(None), jobs=1).run(mine.available_places())
                return [str(wrong) for one in run for wrong in one.wrong]

        assert len(READER.does(find)) == 1
        with pytest.raises(DataDirectoryError, match="cannot place"):
            READER.does(lambda: Client(root).verify_chunk(chunk.id))
        BOB.does(lambda: Client(root).verify_chunk(chunk.id))
        assert BOB.does(lambda: Client(root).wait(chunk.id, PATIENCE_S))
        assert READER.does(find) == []


def test_the_owner_leaves_a_verdict_and_a_reader_none(root: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with reconciling(root):
        brought(root, chunk)

    def verify() -> list[Verified]:
        with Client(root) as mine:
            run = BulkVerify(mine.layout, mine.ref_at, rate=Rate(None), jobs=1)
            return list(run.run(mine.available_places()))

    for user, leaves in ((READER, False), (ALICE, False), (OWNER, True)):
        assert [(one.wrong, one.unnoted) for one in user.does(verify)] == [((), None)]
        assert (chunk_dir(root, chunk) / VERIFIED).exists() == leaves


def test_stranger_does_not_get_in(root: Path) -> None:
    work = (lambda: os.listdir(root), lambda: os.stat(root / "want"), lambda: written(root / "x"))
    assert STRANGER.refused(*work) == [True, True, True]
    with pytest.raises(DataDirectoryError, match="may not be read"):
        STRANGER.does(lambda: Client(root))
    with pytest.raises(DataDirectoryError, match=f"{root} cannot be looked into: Permission denied"):
        STRANGER.does(lambda: read_config(Layout(root)))


def test_unreadable_configuration_is_named_in_the_error(root: Path) -> None:
    (root / "config.toml").touch(mode=0o600)
    with pytest.raises(InvalidInputError, match=r"config\.toml cannot be read: Permission denied"):
        READER.does(lambda: read_config(Layout(root)))


@pytest.mark.parametrize("user", [ALICE, READER])
def test_only_the_owner_reconciles(root: Path, user: User) -> None:
    with pytest.raises(DataDirectoryError, match="LOCK cannot be opened"):
        user.does(lambda: DataManager(root).close())
    with reconciling(root), pytest.raises(DataDirectoryError, match="LOCK cannot be opened"):
        user.does(lambda: DataManager(root).close())
