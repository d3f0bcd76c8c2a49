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
from pathlib import Path

import pytest

from fsdm import InvalidInputError
from fsdm.cli import main as cli
from fsdm.cli.demo.check import end_state_faults
from fsdm.cli.demo.source import Source, content, sha256_of
from fsdm.cli.demo.story import demo, kept
from fsdm.client import Client
from fsdm.store.digests import digest_of
from tests.support import begun, eventually
from tests.support.chunks import chunk_dir

SCALE = 0.001
PATIENCE_S = 120


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


def command(*arguments: str, code: str = "") -> list[str]:
    return [sys.executable, *(["-c", code] if code else ["-m", "fsdm"]), "demo", "--scale", str(SCALE), *arguments]


def environment(tmp_path: Path, encoding: str = "utf-8") -> dict[str, str]:
    """Temporary directories below `tmp_path`, so that what is left behind can be seen."""
    inherited = {name: value for name, value in os.environ.items() if name != "FSDM_DATA_DIR"}
    return {**inherited, "PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "error", "TMPDIR": str(tmp_path)}


def run(tmp_path: Path, *arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(tmp_path, encoding),
        capture_output=True,
        encoding=encoding,
        timeout=PATIENCE_S,
        check=False,
    )


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


def flip_a_byte(file: Path) -> None:
    """Damage that neither names nor sizes show."""
    with open(file, "r+b") as f:
        f.seek(-5, os.SEEK_END)
        last = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([last[0] ^ 1]))


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source(SCALE) as source:
        yield source


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data directory as the demo has left it, and what it said."""
    data_dir, out = tmp_path_factory.mktemp("demo") / "data", io.StringIO()
    assert demo(data_dir, scale=SCALE, out=out), out.getvalue()
    return data_dir, out.getvalue()


# ------------------------------------------------------------------------------------------------------ as it should be


def test_it_shows_what_happens_as_it_happens_and_ends_with_success(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not [symbol for symbol in "📡💾✅⌛❌🛑🔥💀🔎📖🚫📏" if symbol not in done.stdout]
    assert done.stdout.splitlines()[-1] == "✅ the end state is right"
    assert list(tmp_path.iterdir()) == []


def test_the_script_tells_its_scenes_in_this_order(told: tuple[Path, str]) -> None:
    scenes = [line.split("── ")[1] for line in told[1].splitlines() if "── " in line]
    cues = iter(
        [
            "wanted",
            "found by block",
            "hold",
            "again while",
            "deleted again",
            "killed",
            "middle",
            "404",
            "killed",
            "budget",
            "now there is room",
        ]
    )
    cue = next(cues)
    for scene in scenes:
        if cue in scene:
            cue = next(cues, "nothing more")
    assert cue == "nothing more", scenes


def test_every_line_of_its_json_form_is_an_event_and_the_last_one_the_summary(tmp_path: Path) -> None:
    done = run(tmp_path, "--json")
    *events, summary = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert all(event.keys() == {"at", "kind", "chunk_id", "text"} for event in events)
    kinds = {event["kind"] for event in events if re.fullmatch("[0-9a-f]{64}", event["chunk_id"] or "")}
    assert kinds >= {"started", "file", "available", "retiring", "deleted", "failed", "stopped", "over"}
    assert (summary["ok"], summary["faults"], summary["violations"]) == (True, [], 0)
    assert summary["chunks"] == 8
    assert summary["checks"] > 0


def test_a_directory_that_it_is_given_is_kept_and_can_be_used(told: tuple[Path, str], source: Source) -> None:
    data_dir, said = told
    assert str(data_dir) in said.splitlines()[-1]
    with Client(data_dir) as client:
        assert set(client.list_chunks()) == {chunk.id for chunk in kept(source)}
        assert client.status().reconciler is None


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_stream_that_takes_no_symbols_gets_words(tmp_path: Path, encoding: str) -> None:
    done = run(tmp_path, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    words = ("started", "file", "available", "retiring", "deleted", "stopped", "right")
    assert not [word for word in words if f"[{word}]" not in done.stdout]


def test_the_bytes_of_the_source_follow_from_the_path_alone() -> None:
    size = 3_500_000
    data = b"".join(content("/a/blocks.parquet", size))
    assert len(data) == size
    assert data[:4] == data[-4:] == b"PAR1"
    assert len({data[start : start + 4096] for start in range(4, size - 4096, 1 << 20)}) == 4
    assert sha256_of("/a/blocks.parquet", size) != sha256_of("/a/logs.parquet", size)


# -------------------------------------------------------------------------------------------------- as it should not be


def test_a_file_that_is_not_its_sources_makes_it_fail(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, chunk = tmp_path / "data", source.chunks["binance"][0]
    file = chunk_dir(data_dir, chunk) / "data" / "logs.parquet"
    out = Meddler("── the end state", lambda _: flip_a_byte(file))
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["demo", "-d", str(data_dir), "--scale", str(SCALE)]) != 0
    last = out.getvalue().splitlines()[-1]
    assert last.startswith(f"❌ WRONG: {file} is not what READY says")


def _directory(root: Path, source: Source, dataset: str, number: int) -> Path:
    return chunk_dir(root, source.chunks[dataset][number])


def _change_with_ready(chunk: Path) -> None:
    """Damage that READY shares: only the source tells."""
    file, ready = chunk / "data/logs.parquet", chunk / "READY"
    flip_a_byte(file)
    document = json.loads(ready.read_text())
    document["files"][file.name] |= {"blake3": digest_of(str(file), "blake3"), "sha256": digest_of(str(file), "sha256")}
    ready.write_text(json.dumps(document))


FAULTS: dict[str, tuple[Callable[[Path, Source], object], str]] = {
    "another byte": (
        lambda root, source: flip_a_byte(_directory(root, source, "ethereum", 3) / "data/traces.parquet"),
        "traces.parquet is not what READY says",
    ),
    "another byte, in READY as well": (
        lambda root, source: _change_with_ready(_directory(root, source, "ethereum", 3)),
        "is not what is wanted",
    ),
    "a file too few": (
        lambda root, source: (_directory(root, source, "ethereum", 3) / "data/logs.parquet").unlink(),
        "with the files",
    ),
    "a file too many": (
        lambda root, source: (_directory(root, source, "ethereum", 3) / "more").touch(),
        "with the files",
    ),
    "a chunk too few": (
        lambda root, source: shutil.rmtree(_directory(root, source, "hyperliquid", 1)),
        "is wanted, and not available",
    ),
    "a chunk too many": (
        lambda root, source: shutil.copytree(
            _directory(root, source, "hyperliquid", 1),
            _directory(root, source, "hyperliquid", 0),
            copy_function=shutil.copy,
        ),
        "is available, and was deleted",
    ),
    "READY is gone": (
        lambda root, source: (_directory(root, source, "binance", 1) / "READY").unlink(),
        "is wanted, and not available",
    ),
    "a marker": (lambda root, source: (root / "want" / ("a" * 64)).touch(), "is left over"),
    "a partial": (lambda root, source: (root / "partial" / ("a" * 64)).mkdir(), "is left over"),
    "some trash": (lambda root, source: (root / "trash" / "x").touch(), "is left over"),
    "a failure": (lambda root, source: (root / "failed" / ("a" * 64)).touch(), "is left over"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_of_the_end_state_finds(fault: str, told: tuple[Path, str], source: Source, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(told[0], data_dir)
    with Client(data_dir) as client:
        assert list(end_state_faults(client, kept(source))) == []
    meddle, said = FAULTS[fault]
    meddle(data_dir, source)
    with Client(data_dir) as client:
        assert said in "\n".join(end_state_faults(client, kept(source)))


def test_readers_report_what_changes_under_their_hands(tmp_path: Path, source: Source) -> None:
    data_dir = tmp_path / "data"
    file = chunk_dir(data_dir, source.chunks["ethereum"][0]) / "data" / "blocks.parquet"
    out = Meddler("── deleted again", lambda _: flip_a_byte(file))
    assert not demo(data_dir, scale=SCALE, out=out)
    assert "🚨" in out.getvalue()
    assert "blocks.parquet is not what READY says" in out.getvalue().splitlines()[-1]


def test_a_reconciler_that_ends_unasked_makes_it_fail(tmp_path: Path) -> None:
    def kill(line: str) -> None:
        os.kill(int(re.findall(r"the reconciler is process (\d+)", line)[0]), signal.SIGKILL)

    out = Meddler("the reconciler is process", kill)
    assert not demo(tmp_path / "data", scale=SCALE, out=out)
    assert "the reconciler has ended with -9, unasked" in out.getvalue().splitlines()[-1]


def test_at_its_limit_it_gives_up_and_says_what_it_was_waiting_for(tmp_path: Path) -> None:
    out = io.StringIO()
    assert not demo(tmp_path / "data", scale=SCALE, as_json=True, out=out, limit_s=0.01)
    summary = json.loads(out.getvalue().splitlines()[-1])
    assert not summary["ok"]
    assert summary["faults"][0] == "the demo gave up after 0.01 s, waiting until the reconciler is ready"
    assert processes_that_name(tmp_path) == []


def test_it_refuses_a_directory_that_is_not_empty_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InvalidInputError, match=re.escape(str(tmp_path))):
        demo(tmp_path, scale=SCALE, out=io.StringIO())
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(InvalidInputError, match="Not a directory"):
        demo(tmp_path / "mine", scale=SCALE, out=io.StringIO())


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_size_is_refused(scale: float) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        demo(None, scale=scale, out=io.StringIO())


def test_an_interrupt_leaves_neither_processes_nor_directories_behind(tmp_path: Path) -> None:
    # a shell may have started us with SIGINT ignored, which a new process would inherit
    code = (
        "import signal, sys; signal.signal(2, signal.default_int_handler); "
        "from fsdm.cli.main import main; sys.exit(main())"
    )
    with begun(
        command(code=code), env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        while "the reconciler is process" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert said[1] == ""
    assert processes_that_name(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def with_handler(number: int, handler: str) -> list[str]:
    """The demo, whatever we have inherited: a shell may have started us with this signal ignored."""
    handled = f"import signal, sys; signal.signal({int(number)}, signal.{handler})"
    return command(code=f"{handled}; from fsdm.cli.main import main; sys.exit(main())")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_to_end_leaves_nothing_behind_however_often_it_comes(tmp_path: Path, number: signal.Signals) -> None:
    with begun(
        with_handler(number, "SIG_DFL"),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        while "the reconciler is process" not in process.stdout.readline():
            assert process.poll() is None
        eventually(lambda: process.send_signal(number) or process.poll() is not None, "it ends", PATIENCE_S)
        said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said[1]) == (128 + number, "")
    assert processes_that_name(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_nohup_keeps_it_from_ending_with_its_terminal(tmp_path: Path) -> None:
    with begun(
        with_handler(signal.SIGHUP, "SIG_IGN"), env=environment(tmp_path), stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        while "the reconciler is process" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert (process.returncode, "the end state is right" in said) == (0, True)


def test_when_it_is_killed_its_processes_end_by_themselves(tmp_path: Path) -> None:
    with begun(command(), env=environment(tmp_path), stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        while "the reconciler is process" not in process.stdout.readline():
            assert process.poll() is None
        process.kill()
    eventually(lambda: not processes_that_name(tmp_path), "the demo's processes to end")
