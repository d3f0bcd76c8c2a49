"""Which source is asked for a URL: by its scheme, where the policy allows it."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdm.model.errors import PolicyError, TransferError
from fsdm.model.source_policy import Policy
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.schemes import registry
from tests.support import Source
from tests.support.servers import fetch

ANY_THING = Policy(sources=("thing://*", "broken://*", "file+x://*"))
OPENER = """
    from contextlib import contextmanager
    from fsdm.model.errors import TransferError

    class Things:
        size, version = 5, "v"

        @contextmanager
        def open(self, url, stop):
            if "absent" in url:
                raise TransferError("there is no such thing")
            yield self

        def read(self, start, end):
            yield memoryview(b"thing")[start:end]

        def check(self):
            pass

    loaded = []

    def make():
        loaded.append(1)
        return Things()

    def broken():
        raise RuntimeError("hush")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package with two sources, of which one cannot be made; its name."""
    name = f"things_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(OPENER))
    info = tmp_path / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    points = f"thing = {name}:make\nbroken = {name}:broken\nfile = {name}:make\nhttp = {name}:make\n"
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_file_comes_by_the_source_of_a_package(package: str, path: Path) -> None:
    fetcher = HttpFetcher(policy=ANY_THING)
    assert fetch("thing://a/b", path, fetcher=fetcher).size == 5
    assert path.read_bytes() == b"thing"
    fetch("THING://a/c", path, fetcher=fetcher)
    assert sys.modules[package].loaded == [1], "it is made once"
    with pytest.raises(TransferError, match=r"^thing://a/absent: there is no such thing$"):
        fetch("thing://me:hush@a/absent?hush", path, fetcher=HttpFetcher(policy=Policy(sources=("thing://me:hush@a",))))


def test_package_is_not_loaded_for_what_is_not_allowed(package: str, path: Path) -> None:
    with pytest.raises(PolicyError, match="below no source that is allowed") as caught:
        fetch("thing://a/b", path, fetcher=HttpFetcher(policy=Policy(sources=("broken://*",))))
    assert not caught.value.transient
    assert package not in sys.modules


def test_package_does_not_take_the_place_of_what_fsdm_has(package: str, path: Path, source: Source) -> None:
    fetcher = HttpFetcher(policy=Policy(sources=ANY_THING.sources, directories=("/nowhere",)))
    assert fetch(source.put("/x", b"by http"), path, fetcher=fetcher).size == 7
    with pytest.raises(TransferError, match="no such file"):
        fetch("file:///nowhere/x", path, fetcher=fetcher)
    assert package not in sys.modules


def test_package_that_fails_is_named_without_its_words(package: str, path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        fetch("broken://a/b", path, fetcher=HttpFetcher(policy=ANY_THING))
    told = f"{caught.value} {caught.value.hint}"
    assert f"{package}:broken, which is to fetch broken://" in told
    assert "hush" not in told
    assert (caught.value.transient, caught.value.cause) == (True, "settings")


def test_scheme_without_a_source_is_an_error_that_says_so(path: Path) -> None:
    with pytest.raises(TransferError, match=r"nothing installed here fetches file\+x://") as caught:
        fetch("file+x://a/b", path, fetcher=HttpFetcher(policy=ANY_THING))
    assert not caught.value.transient
