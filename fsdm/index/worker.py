"""The process that makes one index: `python -m fsdm.index.worker`, with a job on its stdin and a report on its stdout.

It is begun by `process`, which bounds its time, and takes the report for what it is: the word of a process that ran
code of others. Invariant: that code has no more than the confined process, and what it prints is not in the report.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdm.index.car import car_keys
from fsdm.index.collecting import Collected
from fsdm.index.command import read_output
from fsdm.index.confinement import confine, end_with
from fsdm.index.parquet import parquet_keys
from fsdm.index.process import file_of
from fsdm.index.report import reported
from fsdm.index.writing import write_chunk_index
from fsdm.model.errors import IndexerError

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP: Final = "fsdm.indexers"  # of entry points
FILE_FACTOR: Final = 2  # a file that is written may have so many times what the index may have, and …
FILE_BYTES: Final = 16 << 20  # … these: names and buckets
RAW_FACTOR: Final = 8  # a command may write so many times what the index may have: JSON has many words


@dataclass(frozen=True, slots=True)
class BuildJob:
    """The making of one index: of which files of a directory, by what, and where it is written."""

    parent: int  # the process that has begun this one
    root: str  # relative words of a command are of here
    directory: str
    names: Sequence[str]
    indexer: str | None
    command: str | None
    max_output_bytes: int
    max_memory_bytes: int
    identity: str  # in hex, as the next one
    definition: str
    target: str

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names of files that a glob matches, in order."""
    return sorted(name for name in names if fnmatchcase(name, pattern))


def build(job: BuildJob) -> dict[str, Any]:
    """Find the keys, and write the index; return the report.

    Raises:
        IndexerError: the indexer failed, or what it has emitted cannot be taken.
    """
    collected = Collected(job.names, job.max_output_bytes)
    if not job.names:
        pass  # no file matches: the chunk has no keys
    elif job.command is not None:
        _run_command(job, collected)
    else:
        assert job.indexer is not None
        kind, _, columns = job.indexer.partition(":")
        if job.indexer == "car":
            for block in car_keys(job.directory, job.names):
                collected.add(*block)
        elif kind == "parquet" and columns:
            for rows in parquet_keys(job.directory, job.names, columns.split(",")):
                collected.add_rows(*rows)
        else:
            _run_entry_point(job, collected)
    with open(job.target, "xb") as file:
        identity, definition = map(bytes.fromhex, (job.identity, job.definition))
        header = write_chunk_index(file, collected.entries, job.names, identity=identity, definition=definition)
    return {"count": header.count, "size": header.size}


def _run_entry_point(job: BuildJob, collected: Collected) -> None:
    from importlib.metadata import entry_points  # 50 ms, which no other indexer needs

    found = entry_points(group=GROUP, name=job.indexer or "")
    if not found:
        known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        hint = f"car and parquet:COLUMN are; entry points in the group {GROUP}: {known}"
        raise IndexerError(f"there is no indexer {job.indexer!r:.80}", hint=hint)
    for emitted in next(iter(found)).load()(Path(job.directory), list(job.names)):
        if not isinstance(emitted, tuple) or not 3 <= len(emitted) <= 5:
            hint = "a tuple: key, file, offset, and perhaps length and row group"
            raise IndexerError(f"the indexer has emitted {emitted!r:.80}", hint=hint)
        collected.add(*emitted)


def _run_command(job: BuildJob, collected: Collected) -> None:
    assert job.command is not None
    try:
        words = shlex.split(job.command)
    except ValueError as e:
        raise IndexerError(f"the command cannot be read: {e}", hint="check its quotes") from e
    environment = {**os.environ, "FSDM_CHUNK_PATH": job.directory}
    try:
        with file_of("".join(f"{name}\0" for name in job.names).encode()) as given:
            process = subprocess.Popen(
                [*words, job.directory],
                stdin=given,
                stdout=subprocess.PIPE,
                cwd=job.root,
                env=environment,
                preexec_fn=partial(end_with, os.getpid()),  # noqa: PLW1509 this process has one thread
            )
    except OSError as e:
        raise IndexerError(f"the command cannot be run: {e}", hint="check its path, and that it may be executed") from e
    assert process.stdout is not None
    with process.stdout as stream:
        for key, file, offset, length, group in read_output(stream, RAW_FACTOR * job.max_output_bytes):
            collected.add(key, file, offset, length, group)
    if (code := process.wait()) != 0:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise IndexerError(f"the command {how}")


def main() -> int:
    """Read a job, carry it out, write the report; return the exit code."""

    def carried_out() -> dict[str, Any]:
        job = BuildJob(**json.load(sys.stdin))
        cut = confine(job.max_memory_bytes, FILE_FACTOR * job.max_output_bytes + FILE_BYTES)
        end_with(job.parent)
        return build(job) | {"cut": cut}

    return reported(carried_out)


if __name__ == "__main__":
    sys.exit(main())
