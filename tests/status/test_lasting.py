"""Failures that last until somebody mends them, and those that may pass by themselves."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fsdm.model.documents import Failure, MarkerStamp
from fsdm.model.layout import Layout
from fsdm.model.state import Marker
from fsdm.status.lasting import LastingFailures, lasts
from fsdm.store import json_files
from tests.support.chunks import a_want, an_id, judged, put_want

NOW = 1_800_000_000.0
WANT = Marker(ino=7, ctime_ns=0, mtime_ns=int((NOW - 60) * 1e9) + 1, size=300)
DELETE = Marker(ino=8, ctime_ns=0, mtime_ns=int((NOW - 50) * 1e9) + 1, size=0)
COARSE = Marker(ino=7, ctime_ns=0, mtime_ns=int(NOW - 61) * 10**9, size=300)


def a_failure(marker: Marker | None, **says: Any) -> Failure:
    stamp = None if marker is None else MarkerStamp(ino=marker.ino, mtime_ns=marker.mtime_ns, size=marker.size)
    known = {"id": an_id(1), "kind": "transfer", "error": "HTTP 404 Not Found", "transient": False, "marker": stamp}
    return Failure(**{**known, "first_at": NOW - 60, "last_at": NOW - 60, "next_attempt_at": NOW + 60, **says})


@pytest.mark.parametrize(
    ("expected", "marker", "want", "delete", "says"),
    [
        pytest.param(True, WANT, WANT, None, {}, id="permanent"),
        pytest.param(False, WANT, WANT, None, {"transient": True}, id="transient"),
        pytest.param(False, WANT, WANT, None, {"next_attempt_at": NOW}, id="tried again now"),
        pytest.param(False, WANT, WANT, None, {"next_attempt_at": None, "kind": "disk"}, id="goes on with the disk"),
        pytest.param(True, WANT, WANT, None, {"next_attempt_at": None, "kind": "want"}, id="no want"),
        pytest.param(True, DELETE, WANT, DELETE, {"kind": "marker"}, id="delete/ID is no file"),
        pytest.param(False, WANT, WANT, None, {"kind": "room", "next_attempt_at": None}, id="room"),
        pytest.param(False, None, WANT, None, {"kind": "damaged"}, id="damaged, and comes back"),
        pytest.param(False, WANT, DELETE, None, {}, id="asked for anew"),
        pytest.param(False, WANT, None, None, {}, id="withdrawn"),
        pytest.param(False, WANT, WANT, DELETE, {}, id="overruled"),
        pytest.param(False, COARSE, COARSE, None, {}, id="a coarse time that may be of a newer marker"),
        pytest.param(True, COARSE, COARSE, None, {"last_at": NOW - 30}, id="a coarse time that is old enough"),
    ],
)
def test_a_failure_lasts_while_it_speaks_of_what_stands(
    expected: bool, marker: Marker | None, want: Marker | None, delete: Marker | None, says: dict[str, Any]
) -> None:
    if says.get("kind") == "marker" and delete is not None:
        delete = Marker(delete.ino, delete.ctime_ns, delete.mtime_ns, delete.size, "is a directory, not a file")
    assert lasts(a_failure(marker, **says), want, delete, NOW) is expected


def fails(layout: Layout, chunk_id: str, **says: Any) -> None:
    """Write `failed/ID` as the reconciler does, about the want that stands."""
    failure = a_failure(judged(layout.want_marker(chunk_id)), id=chunk_id, next_attempt_at=time.time() + 900, **says)
    Path(layout.failed_of(chunk_id)).write_bytes(failure.to_json())


@pytest.fixture
def lasting(layout: Layout) -> LastingFailures:
    return LastingFailures(layout)


def test_all_of_them_fail_or_none_is_told(layout: Layout, data_dir: Path, lasting: LastingFailures) -> None:
    one, two = (put_want(data_dir, a_want()).id for _ in range(2))
    assert lasting.of_all([one, two]) == []
    fails(layout, one)
    assert lasting.of_all([one, two]) == []
    assert [failure.id for failure in lasting.of_all([one])] == [one]
    fails(layout, two, error="HTTP 410 Gone")
    assert [failure.error for failure in lasting.of_all([one, two])] == ["HTTP 404 Not Found", "HTTP 410 Gone"]
    os.utime(layout.want_marker(two))
    assert lasting.of_all([one, two]) == []
    assert lasting.of_all([]) == []


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"kind": "transfer"})])
def test_a_failure_that_cannot_be_read_ends_no_wait(layout: Layout, data_dir: Path, text: str) -> None:
    chunk = put_want(data_dir, a_want())
    (data_dir / "failed" / chunk.id).write_text(text)
    assert LastingFailures(layout).of_all([chunk.id]) == []


def test_a_failure_is_read_once_a_change(
    layout: Layout, data_dir: Path, lasting: LastingFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk, read = put_want(data_dir, a_want()), []
    read_regular = json_files.read_regular
    monkeypatch.setattr(json_files, "read_regular", lambda *a: (read.append(a[0]), read_regular(*a))[1])
    fails(layout, chunk.id)
    for _ in range(3):
        assert lasting.of_all([chunk.id])
    assert len(read) == 1
    fails(layout, chunk.id, error="HTTP 403 Forbidden, at last")
    assert lasting.of_all([chunk.id])[0].error == "HTTP 403 Forbidden, at last"
    assert len(read) == 2
