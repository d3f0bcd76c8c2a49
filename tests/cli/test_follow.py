"""`fsdm follow`, and `[follow]` of `fsdm run`, as processes."""

import json
import os
import signal
from pathlib import Path

import pytest

from fsdm.model.layout import Layout
from tests.support import Source, eventually, fsdm, fsdm_json, running
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
