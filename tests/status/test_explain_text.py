"""Why not? Every state, as sentences: a table."""

import time
from dataclasses import fields, replace
from typing import Any

import pytest

from fsdm.model.documents import Failure, MarkerStamp
from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import Place
from fsdm.model.state import ChunkState, Marker, Partial
from fsdm.status.chunk_status import ChunkStatus, DiskStatus, Status
from fsdm.status.explain_text import Explanation, Facts, Others, explain
from fsdm.store.holders import Holder, Holders

NOW = time.mktime((2026, 5, 17, 12, 0, 0, 0, 0, -1))
ID, DATASET = "1" * 64, "d" * 64
PLACE = Place.of(DATASET, range(35), ID)
MB = 10**6


def marker(age_s: float = 180.0, fault: str | None = None) -> Marker:
    at = int((NOW - age_s) * 1e9)
    return Marker(7, at, at, 100, fault)


def failure(kind: Any = "transfer", **says: Any) -> Failure:
    same = marker()
    stamp = MarkerStamp(ino=same.ino, mtime_ns=same.mtime_ns, size=same.size)
    default: dict[str, Any] = {
        "error": "http://host/a: HTTP 503", "first_at": NOW - 900, "last_at": NOW - 60, "attempts": 5,
        "next_attempt_at": NOW + 120, "marker": stamp,
    }  # fmt: skip
    return Failure(**{"id": ID, "kind": kind, **default, **says})


def facts(name: Any, *, state: dict[str, Any] | None = None, **known: Any) -> Facts:
    """Facts of one chunk; `known` are fields of its status, of its surroundings, or of the facts."""

    def take(kind: type) -> dict[str, Any]:
        return {field.name: known.pop(field.name) for field in fields(kind) if field.name in known}

    disk = DiskStatus(known.pop("free_bytes", 10**12), known.pop("read_only", False))
    around = Status(**{"chunks": {}, "oddities": (), "reconciler": '{"pid": 4242}', "disk": disk} | take(Status))
    status = None if name is None else ChunkStatus(ID, name, **take(ChunkStatus))
    return Facts(now=NOW, root="/data", state=ChunkState(id=ID, **(state or {})), status=status, around=around, **known)


FILES_MISSING = InvalidInputError("is missing", field="files")
DUCK = Holder(4711, "duckdb -c 'select 1'", "ann", NOW - 720, "shared")
WANTED = {"want": marker()}
FAILED = {"want": marker(), "failed": True}
RETIRING = {"delete": marker(), "ready": (PLACE,)}


def case(name: Any, state: Any = None, **known: Any) -> tuple[Facts, dict[str, Any]]:
    """Facts, and what must be said; `silent`: words that must not occur."""
    says = {key: known.pop(key) for key in ("asked", "here", "why", "todo", "silent") if key in known}
    return facts(name, state=state, **known), says


CASES: dict[str, tuple[Facts, dict[str, Any]]] = {
    "unknown": case(
        None, asked="neither want/ID nor delete/ID", here="nothing of it", why=["nothing is known of it"],
        todo="fsdm want",
    ),
    "wanted, without a reconciler": case(
        "wanted", WANTED, reconciler=None, asked="it is wanted, as asked for at 11:57:00 (3 min ago)",
        here="nothing of it", why=["no process is reconciling this data directory"], todo="fsdm run -d /data",
        silent=("its turn",),
    ),
    "wanted, and queued": case(
        "wanted", WANTED, others=Others(running=8, older_wants=30),
        why=["waits for its turn, after 8 running downloads and 30 older wants"], todo="nothing: it goes on by itself",
        silent=("both markers", "compared"),
    ),
    "downloading, of a known size": case(
        "downloading", WANTED | {"partial": Partial.BEGUN}, size_bytes=3 * MB, total_bytes=9 * MB,
        here="3.0 MB of 9.0 MB have come", why=["being downloaded by pid 4242"], todo="nothing: it goes on by itself",
    ),
    "downloading, of an unknown size": case(
        "downloading", WANTED | {"partial": Partial.BEGUN}, size_bytes=3 * MB, here="3.0 MB have come",
        why=["being downloaded"],
    ),
    "downloading, of which a part of the size is known": case(
        "downloading", WANTED | {"partial": Partial.BEGUN}, size_bytes=3 * MB, least_bytes=7 * MB,
        here="3.0 MB of at least 7.0 MB have come",
    ),
    "downloading, by who knows whom": case(
        "downloading", WANTED | {"partial": Partial.BEGUN}, reconciler="{}", why=["it is being downloaded"],
        silent=("by pid",),
    ),
    "all has come": case("downloading", WANTED | {"partial": Partial.READY}, here="about to be put"),
    "failed, and may pass": case(
        "failed", FAILED, failure=failure(),
        why=["http://host/a: HTTP 503: since 11:45, 15 min ago; tried 5 times, the last time at 11:59:00 (60 s ago); n",
             "; next at 12:02:00 (in 2 min)"],
        todo="have it tried now: fsdm retry -d /data 1111", silent=("will not pass",),
    ),
    "failed once": case("failed", FAILED, failure=failure(attempts=1), why=["HTTP 503: tried once, the last time"]),
    "failed for good": case(
        "failed", FAILED, failure=failure(error="HTTP 404", transient=False), why=["it will not pass by itself"],
        todo="mend want/ID in place",
    ),
    "failed for good, without a reconciler": case(
        "failed", FAILED, failure=failure(transient=False), reconciler=None, todo="mend want/ID in place",
    ),
    "failed by the disk, which says nothing more": case(
        "failed", FAILED, failure=failure("disk"), silent=("fsdm retry",),
    ),
    "failed, with what the server's error asks for": case(
        "failed", FAILED, failure=failure(hint="renew the token"), todo="renew the token",
    ),
    "failed, and due": case(
        "failed", FAILED, failure=failure(next_attempt_at=NOW - 1), why=["it is being tried again"],
    ),
    "failed, and due, without a reconciler": case(
        "failed", FAILED, failure=failure(next_attempt_at=NOW - 1), reconciler=None,
        why=["no process is reconciling", "was to be tried again at 11:59:59"], todo="fsdm run", silent=("retry",),
    ),
    "given up": case(
        "failed", FAILED, failure=failure(given_up=True, next_attempt_at=None, transient=False), given_up=True,
        why=["given up: not tried again before it is asked for anew"], silent=("will not pass", "goes on by itself"),
        todo="mend its source; to have it tried now: fsdm retry -d /data 1111",
    ),
    "registered, and given up": case(
        "failed", {"failed": True}, failure=failure(given_up=True, next_attempt_at=None), given_up=True, known=True,
        asked="it is registered (known/ID)", why=["given up"], todo="fsdm retry -d /data 1111",
    ),
    "failed, by a server that says when": case(
        "failed", FAILED, failure=failure(not_before=NOW + 120),
        why=["the server has asked for nothing before 12:02:00 (in 2 min)"],
    ),
    "damaged, and given up": case(
        "failed", FAILED, failure=failure("damaged", given_up=True, hint="fsdm retry has it fetched again"),
        given_up=True, why=["taken out of service"], todo="fsdm retry has it fetched again",
    ),
    "registered, and not here": case(
        "known", known=True, asked="nothing: it is registered (known/ID), so it comes when somebody asks for it",
        why=["nobody has asked for it"], todo="fsdm acquire", silent=("never asked for",),
    ),
    "cached": case(
        "available", {"ready": (PLACE,)}, known=True, cached=True, here="it may be evicted where its room is needed",
        asked="it is registered", why=["nothing"],
    ),
    "registered, and waited for": case(
        "wanted", {"acquire": marker(), "asked": "held", "known": marker()}, known=True,
        asked="acquire/ID is there, and somebody waits for it",
    ),
    "failed, and touched since": case(
        "failed", FAILED | {"want": marker(1)}, failure=failure(),
        why=["HTTP 503; but its marker has changed since, so it is tried anew"], silent=("next at",),
    ),
    "failed, and failed/ID says nothing": case(
        "failed", FAILED, why=["failed/ID cannot be read"], todo="who may read it",
    ),
    "the disk refused": case(
        "failed", FAILED, failure=failure("disk", error="No space left", next_attempt_at=None, hint="df"),
        why=["it goes on once the disk takes what is written"], todo="df",
    ),
    "no room, and nothing retires": case(
        "waiting", FAILED,
        failure=failure("room", error="needs 2 GB, but 9 of 10 GB are taken", hint="raise --max-bytes",
                        lacks_bytes=1_200 * MB, next_attempt_at=None),
        why=["no room for it since 11:45 (15 min ago): 1200.0 MB were lacking; it needs 2 GB"],
        todo="raise --max-bytes", silent=("will free",),
    ),
    "no room, and some retire": case(
        "waiting", FAILED, failure=failure("room", error="needs 2 GB, but …"),
        others=Others(retiring=3, retiring_bytes=600 * MB, retiring_held_by=(DUCK,)),
        why=["no room", "3 retiring chunks will free 600.0 MB once released by pid 4711 `duckdb -c 'select 1'`"],
    ),
    "no room, and what retires is held by nobody": case(
        "waiting", FAILED, failure=failure("room"), others=Others(retiring=1, retiring_bytes=600 * MB),
        why=["1 retiring chunk will free 600.0 MB"], silent=("once released",),
    ),
    "retiring, and held": case(
        "retiring", RETIRING, holders=Holders((DUCK,)), size_bytes=5 * MB, block_range=range(35),
        asked="it is to be deleted, as asked for at", here="it is complete, but readers no longer find it: 5.0 MB",
        why=["it is held by pid 4711 `duckdb -c 'select 1'` (ann, running for 12 min); it was deleted 3 min ago"],
        todo="wait until they release it, or end them",
    ),
    "retiring, and held by no process": case(
        "retiring", RETIRING, holders=Holders(), why=["no process holds it; it was deleted 3 min ago"],
        todo="nothing: it goes on by itself", silent=("end them",),
    ),
    "retiring, and its holder cannot be seen": case(
        "retiring", RETIRING, holders=Holders((), ("processes outside this container …",)),
        why=["one that cannot be seen may", "processes outside this container"],
    ),
    "retiring, held by many": case(
        "retiring", RETIRING, holders=Holders(tuple(replace(DUCK, pid=pid) for pid in range(1, 9))),
        why=["pid 5 ", " and 3 more"], silent=("pid 6 ",),
    ),
    "retiring, held by as many as are named": case(
        "retiring", RETIRING, holders=Holders(tuple(replace(DUCK, pid=pid) for pid in range(1, 6))), silent=("more",)
    ),
    "retiring, its holder of unknown age": case(
        "retiring", RETIRING, holders=Holders((replace(DUCK, started_at=None),)), why=["` (ann)"],
    ),
    "replaced, and the old one is held": case(
        "downloading", WANTED | {"unready": (PLACE,), "partial": Partial.BEGUN}, holders=Holders((DUCK,)),
        here="a part of what is to take its place has come, in partial/ID", why=["it is held by pid 4711"],
        silent=("it was deleted",),
    ),
    "deleting": case(
        "deleting", {"delete": marker()}, why=["it is being deleted by pid 4242"], silent=("both markers",)
    ),
    "withdrawn": case(
        "deleting", {"partial": Partial.BEGUN}, size_bytes=5, here="5 bytes have come",
        why=["withdrawn, and is cleared away"], todo="nothing: it goes on by itself",
    ),
    "withdrawn, without a reconciler": case(
        "deleting", {"partial": Partial.BEGUN}, reconciler=None, why=["no process is reconciling"],
    ),
    "available": case(
        "available", {"ready": (PLACE,)}, size_bytes=5 * MB, dataset_id=DATASET, block_range=range(35),
        here=f"it is available: 5.0 MB, blocks [0, 35) of dataset {DATASET}", why=["nothing"], todo="nothing",
        asked="nothing", silent=("by itself", "reconciles"),
    ),
    "available, and read": case(
        "available", {"ready": (PLACE,)}, holders=Holders((DUCK,)), why=["it is read by pid 4711"], todo="nothing",
        silent=("end them",),
    ),
    "available, and read by nobody": case("available", {"ready": (PLACE,)}, holders=Holders(), silent=("is read",)),
    "available, and the first part of another has come": case(
        "available", WANTED | {"ready": (PLACE,), "partial": Partial.BEGUN}, size_bytes=5,
        here="a part of what is to take its place has come", silent=("5 bytes have come",),
    ),
    "available, with a failure left that says nothing": case(
        "available", {"ready": (PLACE,), "failed": True}, why=["nothing"], silent=("failed/ID",),
    ),
    "to be verified": case(
        "available", {"ready": (PLACE,), "verify": marker()}, asked="its bytes are to be compared with READY",
    ),
    "a verify that is a directory": case(
        "available", {"ready": (PLACE,), "verify": marker(fault="is a directory")}, asked="nothing",
        silent=("compared",),
    ),
    "available, without a reconciler": case(
        "available", {"ready": (PLACE,)}, reconciler=None, why=["nothing"], silent=("fsdm run",),
    ),
    "available, and wanted again": case("available", {"ready": (PLACE,), **WANTED}, why=["it is here already"]),
    "unready": case(
        "unready", {"unready": (PLACE,)}, holders=Holders((DUCK,)), here="has no READY", why=["it is held by pid 4711"],
    ),
    "unready, without a reconciler": case(
        "unready", {"unready": (PLACE,)}, holders=Holders(), reconciler=None, why=["no process is reconciling"],
        todo="fsdm run",
    ),
    "a reconciler that is stopped": case(
        "wanted", WANTED, reconciler_trouble="the reconciler, pid 4242, is stopped by a signal",
        why=["pid 4242, is stopped by a signal"], todo="let it go on: kill -CONT 4242; where",
        silent=("no process is",),
    ),
    "a reconciler that is stuck, and does not say who it is": case(
        "wanted", WANTED, reconciler="{}", reconciler_trouble="it does not go on", todo="kill -CONT PID;",
    ),
    "damaged": case(
        "failed", {"unready": (PLACE,), "failed": True}, holders=Holders(),
        failure=failure("damaged", error="a.parquet is missing", hint="want it again", marker=None),
        why=["taken out of service at 11:59:00 (60 s ago): a.parquet is missing", "no process holds it"],
        todo="want it again",
    ),
    "damaged, and wanted again": case(
        "failed", {"unready": (PLACE,), "failed": True, "want": marker(5)}, holders=Holders(),
        failure=failure("damaged", error="a.parquet is missing", hint="want it again", marker=None),
        why=["taken out of service at 11:59:00"], silent=("want it again", "has changed"),
    ),
    "put off, and never tried": case(
        "failed", FAILED, failure=failure(attempts=0, last_at=0.0, postponed=3),
        why=["not tried yet, put off 3 times since"],
    ),
    "failed, and left alone": case(
        "failed", FAILED, failure=failure(next_attempt_at=None), why=["not tried again"], silent=("the disk takes",),
    ),
    "both markers": case(
        "wanted", {"want": marker(), "delete": marker(10)}, asked="both markers are there: the later one",
    ),
    "a want that is a directory": case(
        "failed", {"want": marker(fault="is not a regular file"), "failed": True},
        failure=failure("marker", error="want/… is not a regular file"),
        asked="want/ID asks for nothing: it is not a regular file", why=["want/ID is not a regular file"],
        todo="put a JSON file there", silent=("tried", "want/…"),
    ),
    "a want that may not be looked at": case(
        "wanted", {"want": Marker(0, 0, 0, 0, "cannot be looked at: Permission denied")},
        asked="want/ID asks for nothing", why=["want/ID cannot be looked at: Permission denied"],
        todo="look as a user who may", silent=("remove", "JSON"),
    ),
    "a delete that is a directory": case(
        "retiring", {"delete": marker(fault="is not a regular file"), "ready": (PLACE,)},
        asked="delete/ID asks for nothing", why=["the chunk is not available"], todo="remove it by hand",
        silent=("held",),
    ),
    "a want that may be half-written": case(
        "wanted", {"want": marker(1)}, want_fault=InvalidInputError("line 1: EOF"),
        why=["want/ID cannot be taken: line 1: EOF; it may be half-written"], todo="mend it in place",
    ),
    "a want that cannot be taken": case(
        "failed", FAILED, want_fault=FILES_MISSING, failure=failure("want", error="files: …"),
        why=["want/ID cannot be taken: files: is missing"], silent=("half-written", "tried", "files: …"),
    ),
    "a want that says how to mend it": case(
        "failed", FAILED, want_fault=InvalidInputError("is missing", hint="give a URL"), todo="give a URL",
        silent=("mend it in place",),
    ),
    "a want of tomorrow that cannot be taken": case(
        "wanted", {"want": marker(-86400)}, want_fault=FILES_MISSING, why=["files: is missing"],
        silent=("half-written",),
    ),
    "a delete that fails": case(
        "retiring", RETIRING | {"failed": True}, holders=Holders(), failure=failure(), why=["HTTP 503: since"],
        silent=("fsdm retry",),
    ),
    "a delete that fails, later than a want": case(
        "retiring", RETIRING | WANTED | {"delete": marker(5)}, holders=Holders(),
        failure=failure("disk", error="EIO", marker=MarkerStamp(ino=7, mtime_ns=marker(5).mtime_ns, size=100)),
        why=["EIO: since"], silent=("its marker has changed",),
    ),
    "a want that has just been mended": case(
        "failed", FAILED, failure=failure("want", error="files: is missing", hint="mend it"), why=["files: is missing"],
        todo="mend it",
    ),
    "the disk is full": case(
        "wanted", WANTED, total_bytes=9 * MB, free_bytes=4 * MB,
        why=["the disk is full: 4.0 MB are free, and 9.0 MB are missing"], todo="make room",
    ),
    "the disk lacks a byte": case(
        "downloading", WANTED | {"partial": Partial.BEGUN}, total_bytes=9 * MB, size_bytes=5 * MB,
        free_bytes=4 * MB - 1, why=["the disk is full: 4.0 MB are free, and 4.0 MB are missing"],
    ),
    "the disk has just enough": case(
        "downloading", WANTED | {"partial": Partial.BEGUN}, total_bytes=9 * MB, size_bytes=5 * MB, free_bytes=4 * MB,
        silent=("full",),
    ),
    "a full disk, which deletes do not mind": case("deleting", {"delete": marker()}, free_bytes=0, silent=("full",)),
    "a full disk, which what is here does not mind": case(
        "available", WANTED | {"ready": (PLACE,)}, free_bytes=0, silent=("full",),
    ),
    "the disk is full to the brim": case("wanted", WANTED, free_bytes=0, why=["the disk is full"]),
    "read-only": case("retiring", RETIRING, holders=Holders(), read_only=True, why=["read-only"], todo="writable"),
    "braked": case(
        "retiring", RETIRING, holders=Holders(), braked={}, why=["deletes are held back"], todo="fsdm release -d /data",
    ),
    "braked, which what is cleared away does not mind": case(
        "unready", {"unready": (PLACE,)}, holders=Holders(), braked={}, silent=("held back",),
    ),
    "braked, which wants do not mind": case("wanted", WANTED, braked={}, silent=("held back",)),
    "paused": case(
        "wanted", WANTED, paused={"since": NOW - 90, "by": "ann", "reason": "a backup"},
        why=["downloads are paused since 11:58:30 (90 s ago), by ann: a backup"], todo="fsdm resume -d /data",
        silent=("its turn",),
    ),
    "paused, without a reason": case(
        "wanted", WANTED, paused={"since": "x", "by": 5, "reason": ""}, why=["downloads are paused"],
        silent=("by", "since", "paused:"),
    ),
    "paused, by who knows whom": case(
        "wanted", WANTED, paused={"since": NOW - 90, "by": "", "reason": ["x"]}, why=["since 11:58:30 (90 s ago)"],
        silent=(", by", "x"),
    ),
    "paused, which what is here does not mind": case(
        "available", WANTED | {"ready": (PLACE,)}, paused={}, silent=("paused",),
    ),
    "braked, of which nothing is here": case(
        "deleting", {"delete": marker()}, braked={}, why=["being deleted"], silent=("held back",),
    ),
    "paused, which deletes do not mind": case(
        "deleting", {"delete": marker()}, paused={}, why=["being deleted"], silent=("paused",),
    ),
    "a failure that is left over": case("failed", {"failed": True}, failure=failure("transfer")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_state_is_explained(name: str) -> None:
    known, says = CASES[name]
    told = explain(known)
    for key in ("asked", "here", "todo"):
        assert says.get(key, "") in "\n".join(getattr(told, key))
    for words in says.get("why", ()):
        assert words in "\n".join(told.why)
    for words in says.get("silent", ()):
        assert words not in "\n".join((*told.asked, *told.here, *told.why, *told.todo))
    assert all(all(answers) for answers in (told.asked, told.here, told.why, told.todo)), "each has a sentence"
    assert told.state == known.name


@pytest.mark.parametrize(
    ("verb", "known"),
    [
        ("run", facts("wanted", state=WANTED, reconciler=None)),
        ("resume", facts("wanted", state=WANTED, paused={})),
        ("release", facts("retiring", state=RETIRING, holders=Holders(), braked={})),
        ("retry", facts("failed", state=FAILED, failure=failure())),
        ("retry", facts("failed", state=FAILED, failure=failure(transient=False))),
    ],
)
def test_every_command_that_is_advised_names_the_directory_and_can_be_pasted(verb: str, known: Facts) -> None:
    told = explain(replace(known, root="/of two words"))
    assert f": fsdm {verb} -d '/of two words'" in told.todo[0]


def test_what_matters_first_is_said_first() -> None:
    told: Explanation = explain(facts("failed", state=FAILED, failure=failure(), reconciler=None, paused={}))
    assert [sentence.split()[0] for sentence in told.why] == ["no", "downloads", "http://host/a:"]


def test_a_remedy_is_named_once() -> None:
    told = explain(facts("retiring", state=RETIRING | {"unready": (PLACE,)}, holders=Holders((DUCK, DUCK))))
    assert len(told.todo) == len(set(told.todo)) == 1
