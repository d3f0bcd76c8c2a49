"""Measure fsdm's transfers beside others that move the same bytes from the same server.

The contenders take turns, run by run, each into a fresh directory, on a disk that has been synced; figures are medians.
A peer that took more than twice as long as the fastest sits out the other runs, and a case ends when its time is over,
but not before its third run: so `runs` differ. A durable peer is followed by `sync -f DIRECTORY` (syncfs), one that
does not check by openssl over half of the files on each of two cores. fsdm computes and records a BLAKE3 of each file;
"fsdm bare" is the same with that taken out by the benchmark, for it has no such mode. Where nothing is durable, fsdm
runs with `--durability none`. Its time is from the first want's rename to the last chunk's publishing, in a reconciler
that is up but has not fetched anything yet. Over https all check the server's certificate. The files of a run are
removed after it, but many small ones on a disk at the end (see `base`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.bench.cases import CASES, Case
from tools.bench.nginx import Server, server
from tools.bench.peers import CONTENDERS, NEEDS, Job, Sample
from tools.bench.report import Figure, aligned, table, tell
from tools.bench.site import MEMORY, remove, scratch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SITS_OUT: Final = 2.0  # times the fastest


@dataclass(slots=True)
class Race:
    """One case, its jobs' common part, and the samples of each contender."""

    case: Case
    site: Path  # the jobs' targets are made below it
    scratch: Path
    server: Server
    names: tuple[str, ...]
    sums: tuple[str, ...]
    local: Path | None = None  # where the files are that no server has
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, contenders: list[str], runs: int) -> None:
        """Let the contenders take turns."""
        deadline = time.monotonic() + self.case.seconds
        for number in range(runs):
            if number >= 3 and time.monotonic() > deadline:
                return
            for name in contenders:
                if name not in self.errors and (number == 0 or "fsdm" in name or not self._sits_out(name)):
                    self._once(name, Path(tempfile.mkdtemp(dir=self.site)))

    def best(self, name: str) -> float:
        return min(sample.wall_s for sample in self.samples[name])

    def median(self, name: str, measure: str) -> float:
        values: list[float] = [getattr(sample, measure) for sample in self.samples[name]]
        return statistics.median(values)

    def _sits_out(self, name: str) -> bool:
        return self.best(name) > SITS_OUT * min(self.best(other) for other in self.samples if other != "splice")

    def _once(self, name: str, target: Path) -> None:
        subprocess.run(["sync", "-f", str(target)], check=True)
        case = self.case
        job = Job(
            server=self.server,
            names=self.names,
            size_bytes=case.size_bytes,
            files=case.files,
            target=target,
            scratch=self.scratch,
            durable=case.durable,
            sha256=self.sums,
            tls=case.tls,
            far=case.far,
            ranges=case.limited,
            local=self.local,
            s3=case.s3,
            connections=case.connections,
        )
        try:
            sample = CONTENDERS[name](job)
            _check(job)
            self.samples.setdefault(name, []).append(sample)
        except Exception as e:  # one that fails must not take the others' figures with it
            self.errors[name] = f"{type(e).__name__}: {e}"
        if case.memory or len(self.names) <= 100:
            remove(target)


def _check(job: Job) -> None:
    """Check that all bytes came."""
    found = {path.name: path.stat().st_size for path in job.target.rglob("*") if path.name in set(job.names)}
    if found != dict.fromkeys(job.names, job.size_bytes):
        raise RuntimeError(f"{len(found)} of {len(job.names)} files came, {sum(found.values())} bytes")


# ------------------------------------------------------------------------------------------------------------ the bench


def make_files(directory: Path, count: int, size_bytes: int) -> tuple[str, ...]:
    """Write so many files of random bytes; return their names."""
    content = bytearray(os.urandom(size_bytes))
    names = tuple(f"{number}.parquet" for number in range(count))
    for name in names:
        content[:16] = os.urandom(16)  # no two of them are the same
        (directory / name).write_bytes(content)
        os.utime(directory / name, (0, 0))  # fsdm waits for a file that has just been written
    return names


def sums_of(directory: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sha256 of each file."""
    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(lambda name: hashlib.sha256((directory / name).read_bytes()).hexdigest(), names))


@contextmanager
def race(case: Case, disk: Path, memory: Path, source: Server) -> Iterator[Race]:
    """Put the case's files on the server, and remove them afterwards."""
    files = (disk if case.local else memory) / "files"
    files.mkdir(exist_ok=True)
    names = make_files(files, case.chunks * case.files, case.size_bytes)
    try:
        sums = sums_of(files, names) if case.sha256 else ()
        local = files if case.local else None
        yield Race(case, memory if case.memory else disk, memory, source, names, sums, local)
    finally:
        for name in names:
            (files / name).unlink()


def present(contenders: list[str]) -> tuple[list[str], list[str]]:
    """Return the contenders that are installed here, and the tools that are not."""
    needs = {name: NEEDS.get(tool := name.split()[0], tool) for name in contenders}
    missing = sorted({tool for tool in needs.values() if not shutil.which(tool)})
    return [name for name in contenders if needs[name] not in missing], missing


def rows_of(race: Race) -> list[tuple[str, ...]]:
    """Make a line for each contender: medians, the best wall time, how many runs."""
    gigabytes = len(race.names) * race.case.size_bytes / 1e9
    return [
        (
            race.case.what,
            name,
            f"{race.median(name, 'wall_s'):.2f}",
            f"{race.best(name):.2f}",
            f"{race.median(name, 'cpu_s') / gigabytes:.2f}",
            f"{max(sample.peak_mib for sample in samples):.0f}",
            str(len(samples)),
        )
        for name, samples in sorted(race.samples.items(), key=lambda item: race.median(item[0], "wall_s"))
    ]


def figures_of(name: str, race: Race) -> Iterator[Figure]:
    """Make figures of every contender's medians, without goals."""
    gigabytes = len(race.names) * race.case.size_bytes / 1e9
    for contender, samples in race.samples.items():
        what, count = f"{race.case.what}: {contender}", len(samples)
        yield Figure(name, f"{what}: wall", race.median(contender, "wall_s"), "s", count)
        yield Figure(name, f"{what}: CPU", race.median(contender, "cpu_s") / gigabytes, "s/GB", count)
        yield Figure(name, f"{what}: peak memory", max(sample.peak_mib for sample in samples), "MiB", count)


def ratios_of(name: str, race: Race) -> Iterator[Figure]:
    """Make figures of fsdm against the best of those that each goal names, and that ran."""
    for goal in race.case.goals:
        if goal.of not in race.samples:
            continue
        count = len(race.samples[goal.of])
        what = f"{race.case.what}: {goal.what}"
        if goal.measure == "peak_mib":
            peak = max(sample.peak_mib for sample in race.samples[goal.of])
            yield Figure(name, what, peak, "MiB", count, goal.at_most)
            continue
        peers = [peer for peer in goal.against if peer in race.samples]
        if peers:
            best = min(peers, key=lambda peer: race.median(peer, goal.measure))
            ratio = race.median(goal.of, goal.measure) / race.median(best, goal.measure)
            shown = what if len(goal.against) == 1 else f"{what} ({best})"
            yield Figure(name, shown, ratio, "times", count, goal.at_most)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes."""
    tools = sorted({name.split()[0] for name in CONTENDERS})
    parser.add_argument("--contenders", nargs="+", choices=tools, default=tools, metavar="NAME", help=", ".join(tools))
    parser.add_argument("--runs", type=int, metavar="N", help="so many of each (default: 5, or 1 with --quick)")
    parser.add_argument("--memory", type=Path, default=MEMORY, help="a directory in memory (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Measure and print."""
    if shutil.which("nginx") is None:
        print("nginx is missing: all contenders load from it. Install it", file=sys.stderr)
        return 1
    contenders, missing = present([name for name in CONTENDERS if name.split()[0] in args.contenders])
    for tool in missing:
        print(f"{tool} is missing: skipped", file=sys.stderr)
    rows: list[tuple[str, ...]] = [("case", "contender", "wall s", "best", "CPU s/GB", "peak MiB", "runs")]
    figures: list[Figure] = []
    ratios: list[Figure] = []
    errors: dict[str, str] = {}
    with scratch(args.dir) as disk, scratch(args.memory) as memory, server(memory) as source:
        for name in args.only:
            case = CASES[name].smaller() if args.quick else CASES[name]
            if case.tls and source.tls is None:
                print(f"openssl is missing: {name} skipped", file=sys.stderr)
                continue
            began = time.monotonic()
            with race(case, disk, memory, source) as running:
                running.run(
                    [one for one in contenders if one in case.contenders], args.runs or (1 if args.quick else 5)
                )
            rows += rows_of(running)
            figures += figures_of(name, running)
            ratios += ratios_of(name, running)
            errors |= {f"{name}: {contender}": error for contender, error in running.errors.items()}
            print(f"{name}: {running.errors or 'done'} after {time.monotonic() - began:.1f} s", file=sys.stderr)
    shown = [aligned(rows, "<<>>>>>"), table(ratios)] if ratios else [aligned(rows, "<<>>>>>")]
    return tell("\n\n".join(shown), [*figures, *ratios], errors, args)
