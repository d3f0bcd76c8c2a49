"""The demo, as people start it: a process of its own, at a tiny scale. And that it notices when something is wrong."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdm import InvalidInputError
from fsdm.cli import main as cli
from fsdm.cli.demo import story
from fsdm.cli.demo.source import Source, content
from fsdm.cli.demo.story import demo, end_state_faults, kept
from fsdm.client import Client
from fsdm.store.digests import digest_of
from tests.support.chunks import chunk_dir, flip
from tests.support.processes import begun, fsdm
from tests.support.waiting import PATIENCE_S, eventually

SCALE = 0.001


class Meddler(io.StringIO):
    """A stream that does something once, when a line with `cue` is written: the demo waits for it meanwhile."""

    def __init__(self, cue: str, meddle: Callable[[str], object]) -> None:
        super().__init__()
        self._cue = cue
        self._meddle = meddle

    def write(self, text: str) -> int:
        if self._cue and self._cue in text:
            self._cue = ""
            self._meddle(text)
        return super().write(text)

    @property
    def last(self) -> str:
        return self.getvalue().splitlines()[-1]


def run(tmp_path: Path, *arguments: str, encoding: str = "utf-8") -> str:
    """What it says; it must succeed, say nothing on stderr, and leave nothing behind."""
    surroundings = {"PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "error", "TMPDIR": str(tmp_path)}
    done = fsdm("demo", "--scale", SCALE, *arguments, FSDM_DATA_DIR=str(tmp_path / "not-mine"), **surroundings)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    return done.stdout


@contextmanager
def telling(tmp_path: Path, number: int = signal.SIGINT, handler: str = "SIG_DFL") -> Iterator[subprocess.Popen[str]]:
    """The demo, once it has a child. A shell may have started us with this signal ignored: it is handled anew."""
    code = (
        f"import signal, sys; signal.signal({int(number)}, signal.{handler}); "
        "from fsdm.cli.main import main; sys.exit(main())"
    )
    with begun(
        [sys.executable, "-c", code, "demo", "--scale", str(SCALE)],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        while "the reconciler is process" not in process.stdout.readline():
            assert process.poll() is None
        yield process


def processes_that_name(path: Path) -> list[str]:
    """The processes with this path in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(path) in words:
                found.append(entry.name)
    return found


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source(SCALE) as source:
        yield source


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data directory as the demo has left it, and what it said."""
    data_dir, out = tmp_path_factory.mktemp("demo") / "data", io.StringIO()
    assert demo(str(data_dir), scale=SCALE, out=out), out.getvalue()
    return data_dir, out.getvalue()


# ------------------------------------------------------------------------------------------------------ as it should be


def test_the_script_shows_what_happens_and_tells_its_scenes_in_this_order(told: tuple[Path, str]) -> None:
    assert not [symbol for symbol in "📡💾✅⌛❌🛑🔥💀🔎📖🚫📏⏳🧹" if symbol not in told[1]]
    scenes = iter([line.split("── ")[1] for line in told[1].splitlines() if "── " in line])
    cues = "wanted", "found by block", "hold", "again while", "deleted again", "killed", "middle", "404", "killed"
    for cue in (*cues, "budget", "now there is room", "registered", "acquires", "evicted", "comes again"):
        assert any(cue in scene for scene in scenes), cue


def test_every_line_of_its_json_is_an_event_and_the_last_the_summary(tmp_path: Path) -> None:
    *events, summary = map(json.loads, run(tmp_path, "--json").splitlines())
    assert all(event.keys() == {"at", "kind", "chunk_id", "text"} for event in events)
    kinds = {event["kind"] for event in events if re.fullmatch("[0-9a-f]{64}", event["chunk_id"] or "")}
    assert kinds >= {"started", "file", "available", "retiring", "deleted", "failed", "stopped", "over"}
    assert (summary["ok"], summary["faults"], summary["violations"]) == (True, [], 0)
    assert (summary["chunks"], summary["files"]) == (8, 27)
    assert summary.keys() >= {"bytes", "seconds", "bytes_checked", "events"}
    assert summary["checks"] > 0


def test_a_directory_that_it_is_given_is_kept_and_can_be_used(told: tuple[Path, str], source: Source) -> None:
    data_dir, said = told
    assert str(data_dir) in said.splitlines()[-1]
    with Client(data_dir) as client:
        assert set(client.list_chunks()) == {chunk.id for chunk in kept(source)}
        assert client.status().reconciler is None


def test_a_stream_that_takes_no_symbols_gets_words(tmp_path: Path) -> None:
    said = run(tmp_path, encoding="iso-8859-1")
    assert said.isascii()
    words = ("started", "file", "available", "retiring", "deleted", "stopped", "right")
    assert not [word for word in words if f"[{word}]" not in said]


def test_the_bytes_of_the_source_follow_from_the_path_alone() -> None:
    size = 3_500_000
    data = b"".join(content("/a/blocks.parquet", size))
    assert len(data) == size
    assert data == b"".join(content("/a/blocks.parquet", size))
    assert len({data[start : start + 4096] for start in range(4, size - 4096, 1 << 20)}) == 4
    assert data != b"".join(content("/a/logs.parquet", size))


# -------------------------------------------------------------------------------------------------- as it should not be


def test_a_file_that_is_not_its_sources_makes_it_fail(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, chunk = tmp_path / "data", source.chunks["binance"][0]
    file = chunk_dir(data_dir, chunk) / "data" / "logs.parquet"
    out = Meddler("── the end state", lambda _: flip(str(file)))
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["demo", "-d", str(data_dir), "--scale", str(SCALE)]) == 4
    assert f"❌ WRONG: {file} has the blake3 " in out.last


def _change_with_ready(chunk: Path) -> None:
    """Damage that READY shares: only the source tells."""
    file, ready = chunk / "data/logs.parquet", chunk / "READY"
    flip(str(file))
    document = json.loads(ready.read_text())
    document["files"][file.name] |= {"blake3": digest_of(str(file), "blake3"), "sha256": digest_of(str(file), "sha256")}
    ready.write_text(json.dumps(document))


# what is done to a chunk, or to the data directory around it, and what is said
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another byte": (lambda chunk: flip(str(chunk / "data/traces.parquet")), "traces.parquet has the blake3 "),
    "another byte, in READY as well": (_change_with_ready, "is not available as it is wanted"),
    "a file too few": (lambda chunk: (chunk / "data/logs.parquet").unlink(), "logs.parquet is missing"),
    "a file too many": (lambda chunk: (chunk / "more").touch(), "more is left over"),
    "a file too many in data": (lambda chunk: (chunk / "data/more").touch(), "more is not in READY"),
    "a chunk too few": (shutil.rmtree, "is not available as it is wanted"),
    "a chunk too many": (
        lambda chunk: shutil.copytree(chunk, f"{chunk.parent}/{0:020d}-{9:020d}-{'a' * 64}", copy_function=shutil.copy),
        "is left over",
    ),
    "READY is gone": (lambda chunk: (chunk / "READY").unlink(), "is not available as it is wanted"),
    "a marker": (lambda chunk: (chunk.parents[2] / "want" / ("a" * 64)).touch(), "is left over"),
    "a partial": (lambda chunk: (chunk.parents[2] / "partial" / ("a" * 64)).mkdir(), "is left over"),
    "some trash": (lambda chunk: (chunk.parents[2] / "trash" / "x").touch(), "is left over"),
    "a failure": (lambda chunk: (chunk.parents[2] / "failed" / ("a" * 64)).touch(), "is left over"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_of_the_end_state_finds(fault: str, told: tuple[Path, str], source: Source, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(told[0], data_dir)
    with Client(data_dir) as client:
        assert list(end_state_faults(client, kept(source))) == []
    meddle, said = FAULTS[fault]
    meddle(chunk_dir(data_dir, source.chunks["ethereum"][3]))
    with Client(data_dir) as client:
        assert said in "\n".join(end_state_faults(client, kept(source)))


def test_readers_report_what_changes_under_their_hands(tmp_path: Path, source: Source) -> None:
    file = chunk_dir(tmp_path / "data", source.chunks["ethereum"][0]) / "data" / "blocks.parquet"
    out = Meddler("── deleted again", lambda _: flip(str(file)))
    assert not demo(str(tmp_path / "data"), scale=SCALE, out=out)
    assert "🚨" in out.getvalue()
    assert re.search("WRONG: reader 2 has not read what the source has: .* blocks.parquet", out.last)


def test_a_reconciler_that_ends_unasked_makes_it_fail(tmp_path: Path) -> None:
    def kill(line: str) -> None:
        os.kill(int(re.findall(r"the reconciler is process (\d+)", line)[0]), signal.SIGKILL)

    out = Meddler("the reconciler is process", kill)
    assert not demo(str(tmp_path / "data"), scale=SCALE, out=out)
    assert "the reconciler has ended with -9, unasked" in out.last


def test_at_its_limit_it_gives_up_and_says_what_it_was_waiting_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "LIMIT_S", 0.01)
    out = io.StringIO()
    assert not demo(str(tmp_path / "data"), scale=SCALE, as_json=True, out=out)
    summary = json.loads(out.getvalue().splitlines()[-1])
    assert not summary["ok"]
    assert summary["faults"][0].startswith("gave up after 0.01 s, waiting until ")
    assert processes_that_name(tmp_path) == []


def test_it_refuses_a_directory_that_is_not_empty_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InvalidInputError, match=re.escape(str(tmp_path))):
        demo(str(tmp_path), scale=SCALE, out=io.StringIO())
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(InvalidInputError, match="Not a directory"):
        demo(str(tmp_path / "mine"), scale=SCALE, out=io.StringIO())


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_size_is_refused(scale: float) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        demo(None, scale=scale, out=io.StringIO())


@pytest.mark.parametrize(
    ("number", "handler", "code"),
    [
        (signal.SIGINT, "default_int_handler", 130),
        (signal.SIGHUP, "SIG_DFL", 129),
        (signal.SIGTERM, "SIG_DFL", 143),
    ],
)
def test_a_signal_to_end_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, handler: str, code: int) -> None:
    with telling(tmp_path, number, handler) as process:
        process.send_signal(number)
        if number != signal.SIGINT:  # however often it comes
            eventually(lambda: process.send_signal(number) or process.poll() is not None, "it ends", PATIENCE_S)
        said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said[1]) == (code, "")
    assert processes_that_name(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_nohup_keeps_it_from_ending_with_its_terminal(tmp_path: Path) -> None:
    with telling(tmp_path, signal.SIGHUP, "SIG_IGN") as process:
        process.send_signal(signal.SIGHUP)
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors, "✅ the end state is right: 8 chunks, 27 files, " in said) == (0, "", True)
    assert list(tmp_path.iterdir()) == []


def test_when_it_is_killed_its_processes_end_by_themselves(tmp_path: Path) -> None:
    with telling(tmp_path) as process:
        process.kill()
    eventually(lambda: not processes_that_name(tmp_path), "the demo's processes to end")
