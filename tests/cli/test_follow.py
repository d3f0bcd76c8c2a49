"""`fsdm follow`, and `[follow]` of `fsdm run`, as processes."""

import fcntl
import json
import os
import signal
from pathlib import Path

import pytest

from fsdm.model.layout import Layout, is_id
from fsdm.store.filesystem import opened
from tests.support import PATIENCE_S, Fault, Source, eventually, fsdm, fsdm_json, running
from tests.support.chunks import a_want, entries


def state(layout: Layout) -> dict[str, object]:
    try:
        return json.loads(Path(layout.follow, "STATE").read_bytes())  # type: ignore[no-any-return]
    except FileNotFoundError:
        return {}


def test_process_follows_looks_at_sighup_and_leaves_at_sigterm_what_the_next_one_knows(
    layout: Layout, source: Source, tmp_path: Path
) -> None:
    first, second = a_want(), a_want()
    url = source.put("/list", first.to_json())
    with running("follow", "-d", layout.root, url, "--every", "1h", "--report", tmp_path) as process:
        eventually(lambda: entries(Path(layout.want)) == [first.id])
        eventually(lambda: len(list(tmp_path.glob("*.json"))) == 1, "it has reported, by a name that was made")
        other = fsdm("follow", "-d", layout.root, url)
        assert (other.returncode, f"pid {process.pid}" in other.stderr) == (5, True)
        os.unlink(layout.want_marker(first.id))
        source.put("/list", first.to_json() + second.to_json())
        process.send_signal(signal.SIGHUP)
        eventually(lambda: entries(Path(layout.want)) == sorted([first.id, second.id]))
        process.terminate()
        assert process.wait() == 0
    told = fsdm_json("status", "-d", layout.root)["followed"]
    assert (told["chunks"], told["url"], told["error"]) == (2, url, "")
    assert f"list {told['applied'][:12]} of {url} is applied: 2 chunks" in fsdm("status", "-d", layout.root).stderr


@pytest.mark.parametrize("verb", ["follow", "run"])
def test_process_ends_though_the_server_that_it_asks_says_nothing(layout: Layout, source: Source, verb: str) -> None:
    url = source.put("/list", a_want().to_json())
    source.faults["/list"] = silent = Fault(stall_at=0)
    Path(layout.config).write_text(f'[follow]\nurl = "{url}"\n')
    with running(verb, "-d", layout.root) as process:
        eventually(silent.stalled.is_set, "the server has been asked")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, "and the server has not answered yet"
    silent.gate.set()


def test_process_that_is_ended_while_it_applies_a_list_leaves_whole_markers(layout: Layout, source: Source) -> None:
    url = source.put("/list", b"".join(a_want().to_json() for _ in range(2000)))
    with opened(layout.want, os.O_RDONLY) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)  # so that each marker takes 5 ms
        with running("follow", "-d", layout.root, url) as process:
            eventually(lambda: os.listdir(layout.want), "it has begun to apply it")
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    found = os.listdir(layout.want)
    assert 0 < len(found) < 2000
    assert [name for name in found if not is_id(name)] == []
    assert state(layout) == {}, "the list is not applied"


def test_reconciler_follows_what_its_configuration_says_and_what_it_says_then(layout: Layout, source: Source) -> None:
    chunk, config = source.chunk(files=1), Path(layout.config)
    config.write_text(f'[follow]\nurl = "{source.put("/list", chunk.to_json())}"\nevery = "1h"\n')
    with running("run", "-d", layout.root) as process:
        eventually(lambda: fsdm("ls", "-d", layout.root).stdout.startswith(chunk.id))
        other = source.put("/other", chunk.to_json() + a_want(block_range=(9, 10)).to_json())
        config.write_text(f'[follow]\nurl = "{other}"\nevery = "1h"\n')
        process.send_signal(signal.SIGHUP)
        eventually(lambda: state(layout).get("chunks") == 2)
        assert state(layout)["url"] == other


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("follow = 7", "follow: must be a table"),
        ("[follow]\nurl = 7", "follow: url: must be a text"),
        ('[follow]\nevery = "1m"', "follow: has no url"),
        ('[follow]\nurll = "x"', "did you mean url?"),
        ('[follow]\nurl = "http://h/x"\nevery = "soon"', "follow: every: 'soon' is no duration"),
    ],
)
def test_table_that_cannot_be_taken_ends_it_with_2(layout: Layout, text: str, told: str) -> None:
    Path(layout.config).write_text(text)
    done = fsdm("run", "-d", layout.root)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "it is not said what to follow"),
        (("://",), "is no URL"),
        (("http://h/placement.json",), "a placement has a list for each node"),
        (("http://h/x", "--node-id", "../x"), "is no name of a node"),
    ],
)
def test_what_cannot_be_followed_is_told_with_2(layout: Layout, arguments: tuple[str, ...], told: str) -> None:
    done = fsdm("follow", "-d", layout.root, *arguments)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
