"""Lists and documents by URL: whole or not at all, with the settings of sources, and 304 where nothing is new."""

import gzip
import tempfile
from pathlib import Path

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.lists.fetching import Fetching, Version
from fsdm.model.errors import EXIT_NOT_CONVERGED, StoppedError, TransferError
from fsdm.model.layout import Layout
from tests.support import Source, fsdm, fsdm_json
from tests.support.chunks import a_want


def test_version_that_is_known_is_not_fetched_again(source: Source) -> None:
    url, fetching = source.put("/list", b"one"), Fetching()
    with tempfile.TemporaryFile() as file:
        first = fetching.fetch(url, file)
        assert first is not None
        assert (file.read(), first.tells_its_end) == (b"one", True)
    source.fault("/list", status=304)
    with tempfile.TemporaryFile() as file:
        assert fetching.fetch(url, file, first.version) is None
    assert source.heads["/list"][1]["If-None-Match"] == first.version.etag
    assert "If-None-Match" not in source.heads["/list"][0]


def test_date_of_a_list_is_asked_with_where_it_has_one(source: Source) -> None:
    said = "Tue, 01 Dec 2026 08:00:00 GMT"
    source.fault("/list", headers={"Last-Modified": said, "ETag": "none"})
    with tempfile.TemporaryFile() as file:
        found = Fetching().fetch(source.put("/list", b"one"), file)
    assert found is not None
    assert found.version == Version(last_modified=said)
    assert found.version.conditions == {"If-Modified-Since": said}


@pytest.mark.parametrize(("changed", "is_known"), [("1 Dec 2099", False), ("1 Dec 2020", True)])
def test_what_was_changed_in_the_second_of_the_answer_is_asked_for_again(
    source: Source, changed: str, is_known: bool
) -> None:
    """Another text of the same second has the same date, and the same ETag where that is made of date and length."""
    source.fault("/list", headers={"Last-Modified": f"Tue, {changed} 08:00:00 GMT", "ETag": '"6a1d0c80-3"'})
    with tempfile.TemporaryFile() as file:
        found = Fetching().fetch(source.put("/list", b"one"), file)
    assert found is not None
    assert bool(found.version.conditions) == is_known


def test_304_that_was_not_asked_for_is_an_error(source: Source) -> None:
    source.fault("/list", status=304)
    with tempfile.TemporaryFile() as file, pytest.raises(TransferError, match="HTTP 304"):
        Fetching().fetch(source.put("/list", b"one"), file)


@pytest.mark.parametrize(
    ("status", "hint", "transient"),
    [(404, "check the URL", False), (403, "wants credentials", False), (503, "ask again", True)],
)
def test_no_of_a_server_is_told_with_what_to_do_and_ends_with_4(
    source: Source, layout: Layout, status: int, hint: str, transient: bool
) -> None:
    url = source.put("/list", b"")
    source.fault("/list", status=status)
    with tempfile.TemporaryFile() as file, pytest.raises(TransferError, match=f"/list: HTTP {status}") as e:
        Fetching().fetch(url, file)
    assert (hint in e.value.hint, e.value.transient) == (True, transient)
    for verb in ("sync", "want"):
        done = fsdm(verb, "-d", layout.root, url)
        assert (done.returncode, hint in done.stderr) == (EXIT_NOT_CONVERGED, True)


def test_list_that_stalls_is_given_up_at_once_when_it_is_stopped(source: Source) -> None:
    stop, fault = Cancellation(), source.fault("/list", stall_at=1)
    stop.guard(lambda: None)
    url = source.put("/list", b"xyz")
    fault.stalled = _Setting(stop)  # type: ignore[assignment]
    with tempfile.TemporaryFile() as file, pytest.raises(StoppedError):
        Fetching().fetch(url, file, stop=stop)


class _Setting:
    """An event that stops a transfer when it is set."""

    def __init__(self, stop: Cancellation) -> None:
        self._stop = stop

    def set(self) -> None:
        self._stop.set()


def test_credentials_of_a_source_go_with_sync_and_want_and_are_never_shown(source: Source, layout: Layout) -> None:
    config = Path(layout.config)
    config.write_text(f'[[source]]\nmatch = "{source.url}/"\nheaders = {{ Authorization = "Bearer hidden" }}\n')
    config.chmod(0o600)
    chunk, other = a_want(), a_want()
    assert fsdm_json("sync", "-d", layout.root, source.put("/list", chunk.to_json()))["wanted"] == [chunk.id]
    done = fsdm("want", "-d", layout.root, source.put("/one.json", other.to_json()), source.put("/broken", b"{"))
    assert done.returncode == 2
    assert f"fsdm: {source.url}/broken: " in done.stderr
    assert "hidden" not in done.stderr
    assert Path(layout.want_marker(other.id)).exists()
    for path in ("/list", "/one.json"):
        assert source.heads[path][0]["Authorization"] == "Bearer hidden"


@pytest.mark.parametrize("said", ["gzip", "x-gzip"])
def test_list_that_a_server_compresses_once_more_is_read(source: Source, layout: Layout, said: str) -> None:
    chunk = a_want()
    packed = gzip.compress(gzip.compress(chunk.to_json()))
    source.fault("/list", headers={"Content-Encoding": said})
    assert fsdm_json("sync", "-d", layout.root, source.put("/list", packed))["wanted"] == [chunk.id]


def test_coding_that_is_not_known_is_refused(source: Source) -> None:
    source.fault("/list", headers={"Content-Encoding": "br"})
    with tempfile.TemporaryFile() as file, pytest.raises(TransferError, match="Content-Encoding 'br'"):
        Fetching().fetch(source.put("/list", b"one"), file)
