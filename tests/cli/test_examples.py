"""The examples of `--help`: each is run, by copy and paste, where it has what it speaks of."""

import gzip
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from fsdm import DataManager, Limits
from fsdm.cli import main as cli
from fsdm.cli.commands import VERBS
from tests.support import PATIENCE_S, Source, eventually, kill_group, owner, shell_holding
from tests.support.chunks import an_id, content, entries
from tests.support.indexers import by_four

EXAMPLES = [
    *(pytest.param(line, id=f"fsdm --help: {line.partition('#')[0].strip()}") for line in cli.EXAMPLES.splitlines()),
    *(
        pytest.param(line, id=line.partition("#")[0].strip())
        for verb in VERBS
        for line in import_module(f"fsdm.cli.commands.{verb}").EXAMPLES.splitlines()
    ),
]
# it goes on until it is told to stop
ENDLESS = re.compile(r"fsdm (run\b(?!.*--once)|follow\b|ui\b|.*--watch|.*--follow)")
# elsewhere it is run with all that it takes: half a minute
ELSEWHERE = {"fsdm demo": "test_demo.py"} | dict.fromkeys(
    ("fsdm fleet demo", "fsdm fleet demo --chunks 200"), "test_fleet_demo.py"
)


@pytest.fixture
def place(tmp_path: Path, source: Source) -> tuple[Path, dict[str, str]]:
    """A directory with `data`, and what the examples speak of beside it; and what their words stand for there."""
    chunk = source.chunk(start=17_000_000, end=17_000_100, dataset="17ab" + "d" * 60)
    with DataManager(tmp_path / "data") as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
    (tmp_path / "data" / "trace.jsonl").write_text(f'{{"seq": 1, "event": "available", "chunk_id": "{chunk.id}"}}\n')
    (tmp_path / "chunk.json").write_bytes(chunk.to_json())
    (tmp_path / "assignment.jsonl").write_bytes(chunk.to_json())
    (tmp_path / "workers.jsonl").write_text('{"name": "w1", "capacity": "1G"}\n{"name": "w2", "capacity": "1G"}\n')
    (tmp_path / "reports").mkdir()
    source.put("/assignment.jsonl.gz", gzip.compress(chunk.to_json()))
    source.put("/chunk.json", chunk.to_json())
    text = chunk.to_json()
    sha256 = hashlib.sha256(text).hexdigest()
    source.put(f"/fleet/lists/{sha256}.jsonl.gz", gzip.compress(text))
    source.put("/fleet/placement.json", json.dumps({"lists": {"a1": {"sha256": sha256}}}).encode())
    for directory in ("bin", ".zfunc", ".local/share/bash-completion/completions", ".local/share/man/man1"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / ".config/fish/completions").mkdir(parents=True)
    for program, does in (("make-wants", "cat chunk.json"), ("less", "exec cat")):
        (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / program).chmod(0o755)
    first = content(f"{chunk.id}/blocks.parquet")[:4].hex()
    stand_for = {
        r"\bHASH\b": first,
        r"\bID\b": chunk.id,
        r"\bDATASET\b": chunk.dataset_id,
        "https://example.org": source.url,
    }
    return tmp_path, stand_for


@contextmanager
def in_the_shell(line: str, at: Path) -> Iterator[subprocess.Popen[str]]:
    command, path = (
        ["bash", "-o", "pipefail", "-c", line],
        f"{at}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    environment = {**os.environ, "HOME": str(at), "PATH": path}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=at, env=environment, text=True, start_new_session=True, **streams)
    try:
        yield process
    finally:
        kill_group(process)
        process.communicate()


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_help_does_what_it_says(line: str, place: tuple[Path, dict[str, str]]) -> None:
    at, stand_for = place
    command = line.partition(" #")[0].strip()
    if command in ELSEWHERE:
        pytest.skip(f"{ELSEWHERE[command]} runs it")
    for program in re.findall(r"\| (\w+)", re.sub(r"'.*?'", "", command)):
        if program != "fsdm" and not (shutil.which(program) or (at / "bin" / program).exists()):
            pytest.skip(f"there is no {program} here")
    failing = an_id() if re.search("failed|retry", command) else None
    for word, value in (stand_for | ({r"\bID\b": failing} if failing else {})).items():
        command = re.sub(word, value, command)
    with ExitStack() as stack:
        if "fsdm run" not in command:
            indexes = [by_four(at, name="tx")] if re.search("fsdm index|--key", command) else []
            dm = stack.enter_context(DataManager(at / "data", indexes=indexes))
            if indexes:
                eventually(lambda: list((at / "data" / "index").glob("tx/run-*")))
                dm.change(Limits(), indexes=[])
        if failing:
            (at / "data" / "want" / failing).write_text("{")
            eventually(lambda: entries(at / "data" / "failed"))
        if "holders" in command:
            [directory] = (at / "data" / "chunks").glob("*/*")
            stack.enter_context(shell_holding(directory))
        endless = ENDLESS.search(command)
        shell = stack.enter_context(in_the_shell(f"exec {command}" if endless else command, at))
        if endless:
            eventually(lambda: has_begun(command, shell, at), "it has begun")
            os.killpg(shell.pid, signal.SIGTERM)
        _, said = shell.communicate(timeout=120)
        assert shell.returncode == 0, said


def has_begun(command: str, shell: subprocess.Popen[str], at: Path) -> bool:
    """Whether a command that goes on has shown that it does: it reconciles, or has printed something."""
    if "fsdm run" in command:
        return owner(at / "data") == shell.pid
    if "fsdm follow" in command:
        return (at / "data/follow/STATE").exists()
    into = re.search(r"> *(\S+)$", command)
    if into is not None:
        return (at / into[1]).exists() and (at / into[1]).stat().st_size > 0
    return bool(select.select([shell.stdout], [], [], 0)[0])


def test_every_verb_can_run_and_has_examples_that_name_it() -> None:
    for verb in VERBS:
        module = import_module(f"fsdm.cli.commands.{verb}")
        assert callable(module.run)
        assert module.EXAMPLES.endswith("\n")
        for line in module.EXAMPLES.splitlines():
            assert line.startswith("fsdm ") or "| fsdm " in line
            assert re.search(rf"\bfsdm (.* )?{verb}\b", line)
