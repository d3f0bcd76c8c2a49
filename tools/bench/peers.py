"""The contenders of `transfers`, and the measuring of a run.

A contender brings the files of a job into an empty directory; what has to follow for the same result (a sync, openssl)
belongs to its run. Each peer has the settings that were the best for it here. A peer's time is its process from start
to end; the requests loop tells its own, without Python's start.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fsdm import DataChunk
from fsdm.model.layout import Layout
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tools.support.proc import memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tools.bench.nginx import Server

RUN_MAX_S: Final = 150.0
LOOK_EVERY_MS: Final = 5  # at a running child's memory
WORKERS: Final = Path(__file__).with_name("workers.py")
SPLICE_C: Final = Path(__file__).with_name("splice.c")
BUCKET: Final = "lake"
DATASET: Final = hashlib.sha256(b"transfers").hexdigest()

Step = list[list[str]]  # commands that run beside each other


@dataclass(frozen=True, slots=True)
class Job:
    """A job: to bring the files `names` from the server's root, or `local`, into the new directory `target`."""

    server: Server
    names: tuple[str, ...]
    size_bytes: int  # of each
    files: int  # so many of them are a chunk
    target: Path
    scratch: Path  # lists and logs
    durable: bool = False
    sha256: tuple[str, ...] = ()  # of each file, where they are to be checked
    tls: bool = False
    far: bool = False
    ranges: bool = False  # each connection is slow: use several for a file
    s3: bool = False
    local: Path | None = None  # the directory that they are in, where no server has them
    connections: int = 8  # of fsdm, and its jobs

    @property
    def url(self) -> str:
        if self.local is not None:
            return self.local.as_uri()
        if self.s3:
            return f"s3://{BUCKET}"
        if self.tls:
            return f"https://127.0.0.1:{self.server.far if self.far else self.server.tls}"
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return self.server.slow if self.ranges else self.server.full

    def trust(self, option: str) -> list[str]:
        """Return the option by which a peer trusts the server, where TLS is spoken."""
        return [option, self.server.certificate] if self.tls else []

    def note(self, name: str, lines: Sequence[str]) -> str:
        """Write a file with these lines; return its path."""
        path = self.scratch / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return str(path)


@dataclass(frozen=True, slots=True)
class Sample:
    """The cost of a run: seconds, CPU seconds of the contender's processes, its peak memory."""

    wall_s: float
    cpu_s: float
    peak_mib: float


# -------------------------------------------------------------------------------------------------------- how it is run


def run(steps: Sequence[Step], log: Path) -> Sample:
    """Run the steps one after the other, and measure them together."""
    began, cpu_s, peak_mib = time.monotonic(), 0.0, 0.0
    for step in steps:
        with log.open("ab") as out:
            children = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out) for command in step]
        try:
            for child in children:
                used_s, most_mib = _wait(child, began + RUN_MAX_S)
                cpu_s, peak_mib = cpu_s + used_s, max(peak_mib, most_mib)
        finally:
            for child in children:
                _end(child)
    return Sample(time.monotonic() - began, cpu_s, peak_mib)


def _wait(child: subprocess.Popen[bytes], deadline: float) -> tuple[float, float]:
    """Wait for a child to end well and in time; return its CPU seconds and peak memory in MiB.

    Its memory is looked at while it runs: ru_maxrss begins with what its parent had (getrusage(2)).
    """
    peak_mib = 0.0
    poll = select.poll()
    ended = os.pidfd_open(child.pid)
    try:
        poll.register(ended, select.POLLIN)
        while not poll.poll(LOOK_EVERY_MS):
            with suppress(OSError, StopIteration):  # it ended just now
                peak_mib = max(peak_mib, memory_mib(child.pid, "VmHWM"))
            if time.monotonic() > deadline:
                raise TimeoutError(f"{child.args!s:.80}: not within {RUN_MAX_S:g} s")
        _, status, used = os.wait4(child.pid, 0)
    finally:
        os.close(ended)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{child.args!s:.80}: exit status {child.returncode}")
    return used.ru_utime + used.ru_stime, peak_mib


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is None:
        child.kill()
        child.wait()


# ------------------------------------------------------------------------------------------------------ the contenders


def curl(job: Job, version: str = "--http1.1") -> Step:
    """Transfer by curl, 8 at once."""
    pairs = [f'url = "{job.url}/{name}"\noutput = "{job.target}/{name}"' for name in job.names]
    at_once = ["--parallel", "--parallel-max", "8"]
    return [["curl", "-q", "-sf", version, *job.trust("--cacert"), *at_once, "-K", job.note("curl", pairs)]]


def wget2(job: Job) -> Step:
    """Transfer by wget2, 4 at once."""
    urls = job.note("urls", [f"{job.url}/{name}" for name in job.names])
    how = ["--no-config", "--no-hsts", "--no-ocsp", "-q", *job.trust("--ca-certificate")]
    return [["wget2", *how, "--max-threads=4", "-P", str(job.target), "-i", urls]]


def rclone(job: Job) -> Step:
    """Transfer by rclone, 4 at once; 8 streams a file where connections are slow."""
    names = job.note("names", job.names)
    streams = ["--transfers", "8", "--multi-thread-streams", "8", "--multi-thread-cutoff", "1M"]
    how = streams if job.ranges else ["--transfers", "4", "--multi-thread-streams", "0"]
    source = ["--config", "", ":http:", "--http-url", f"{job.url}/", "--files-from", names, "--no-traverse"]
    how += ["--no-check-dest", "--checkers", "16", *job.trust("--ca-cert")]
    return [["rclone", "copy", *source, str(job.target), *how]]


def rclone_s3(job: Job) -> Step:
    """Transfer out of a bucket by rclone, 4 at once."""
    names = job.note("names", job.names)
    keys = ["--s3-provider", "Other", "--s3-access-key-id", "id", "--s3-secret-access-key", "secret"]
    at = ["--s3-endpoint", f"http://127.0.0.1:{job.port}", "--s3-force-path-style", "--s3-region", "us-east-1"]
    how = ["--files-from", names, "--no-traverse", "--no-check-dest", "--checkers", "16", "--transfers", "4"]
    how += ["--multi-thread-streams", "0", "--config", ""]
    bare = ["env", "-u", "AWS_CA_BUNDLE"]  # with a bundle it does not begin
    return [[*bare, "rclone", "copy", f":s3:{BUCKET}", str(job.target), *keys, *at, *how]]


def aria2c(job: Job, *, checked: bool = False) -> Step:
    """Transfer by aria2c, 4 at once, `checked` by itself or not."""
    lines = [f"{job.url}/{name}\n  out={name}" for name in job.names]
    if checked:
        lines = [f"{line}\n  checksum=sha-256={digest}" for line, digest in zip(lines, job.sha256, strict=True)]
    how = ["-j8", "-x4", "-s4", "-k1M"] if job.ranges else ["-j4"]
    listed = [*job.trust("--ca-certificate"), "-i", job.note("aria2c", lines), "-d", str(job.target)]
    return [["aria2c", "--no-conf", "-q", "--file-allocation=none", *how, *listed]]


def cp(job: Job) -> Step:
    """Copy by cp."""
    return [["cp", "--reflink=auto", "-t", str(job.target), *(f"{job.local}/{name}" for name in job.names)]]


def openssl(job: Job) -> Step:
    """Compute digests on both cores, half of the files each."""
    paths = [f"{job.target}/{name}" for name in job.names]
    return [["openssl", "dgst", "-sha256", *half] for half in (paths[::2], paths[1::2]) if half]


def rclone_sums(job: Job) -> Step:
    """Check digests by rclone."""
    sums = [f"{digest}  {name}" for name, digest in zip(job.names, job.sha256, strict=True)]
    return [["rclone", "checksum", "sha256", "--config", "", job.note("sums", sums), str(job.target)]]


def sync(job: Job) -> Step:
    """Write back the file system: syncfs(2)."""
    return [["sync", "-f", str(job.target)]]


def after(job: Job) -> list[Step]:
    """Return the steps that must follow a peer that only transfers."""
    return [openssl(job)] * bool(job.sha256) + [sync(job)] * job.durable


def peer(step: Callable[[Job], Step]) -> Callable[[Job], Sample]:
    """Make a contender of a command that only transfers, with what has to follow."""

    def bring(job: Job) -> Sample:
        return run([step(job), *after(job)], job.scratch / "log")

    return bring


def plain_requests(job: Job) -> Sample:
    """Run a plain loop of requests, 4 at once; return its own times, plus those of what follows."""
    log = job.scratch / "requests"
    log.write_bytes(b"")
    arguments = [str(job.port), str(job.target), "4", job.note("paths", job.names)]
    run([[[sys.executable, str(WORKERS), "requests", *arguments]]], log)
    inner = Sample(**json.loads(log.read_text().splitlines()[-1]))
    rest = run(after(job), job.scratch / "log")
    return Sample(inner.wall_s + rest.wall_s, inner.cpu_s + rest.cpu_s, max(inner.peak_mib, rest.peak_mib))


@functools.cache
def splice_program(directory: Path) -> str:
    """Compile the C loop; return its path."""
    program = str(directory / "splice")
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, str(SPLICE_C)], check=True, capture_output=True)
    return program


def splice(job: Job) -> Step:
    """Only move the bytes, in a loop: this machine's own limit."""
    return [[splice_program(job.scratch), str(job.port), str(job.target), "4", job.note("paths", job.names)]]


def wants(job: Job) -> list[DataChunk]:
    """Return the job's files as chunks."""
    chunks = []
    for first in range(0, len(job.names), job.files):
        files: dict[str, Mapping[str, object]] = {}
        for at in range(first, min(first + job.files, len(job.names))):
            digest = {"sha256": job.sha256[at]} if job.sha256 else {}
            files[job.names[at]] = {"url": f"{job.url}/{job.names[at]}", "size": job.size_bytes, **digest}
        chunk_id = hashlib.sha256(b"%d" % first).hexdigest()
        chunks.append(DataChunk(id=chunk_id, dataset_id=DATASET, block_range=range(first, first + 1), files=files))
    return chunks


def fsdm(job: Job, digest: str = "digest", http_version: str = "1.1") -> Sample:
    """Run fsdm: from the first want's rename to the last publishing, in a reconciler that is up."""
    layout, chunks = Layout(job.target), wants(job)
    make_layout(layout, FileSystem())
    for chunk in chunks:
        Path(f"{layout.want}/.{chunk.id}").write_bytes(chunk.to_json())
    durability = "chunk" if job.durable else "none"
    connections = str(job.connections)
    how = [connections, connections, durability, digest, http_version, str(len(chunks)), str(job.local or "")]
    how.append(f"http://127.0.0.1:{job.port}" if job.s3 else "")
    command = [sys.executable, str(WORKERS), "fsdm", str(job.target), *how]
    trusting = os.environ | ({"REQUESTS_CA_BUNDLE": job.server.certificate} if job.tls else {})
    with (
        (job.scratch / "log").open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=trusting) as child,
    ):
        try:
            assert child.stdout is not None
            if child.stdout.readline() != b"ready\n":
                raise RuntimeError("the reconciler does not start")
            began = time.monotonic()
            for chunk in chunks:
                os.rename(f"{layout.want}/.{chunk.id}", layout.want_marker(chunk.id))
            said = json.loads(child.stdout.readline() or b"{}")
        finally:
            _end_gently(child)
    if "ended" not in said:
        raise RuntimeError((job.scratch / "log").read_text()[-300:])
    return Sample(said["ended"] - began, said["cpu_s"], said["peak_mib"])


def _end_gently(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(10 if sys.exc_info()[0] is None else 0.1)
    except subprocess.TimeoutExpired:
        child.kill()


CONTENDERS: Final[dict[str, Callable[[Job], Sample]]] = {
    "fsdm": fsdm,
    "fsdm bare": lambda job: fsdm(job, "bare"),
    "fsdm http2": lambda job: fsdm(job, http_version="2"),
    "splice": peer(splice),
    "wget2": peer(wget2),
    "curl": peer(curl),
    "curl http2": peer(functools.partial(curl, version="--http2")),
    "rclone": peer(rclone),
    "rclone s3": peer(rclone_s3),
    "cp": peer(cp),
    "requests": plain_requests,
    "aria2c": peer(aria2c),
    "rclone checksum": lambda job: run([rclone(job), rclone_sums(job)], job.scratch / "log"),
    "aria2c checksum": lambda job: run([aria2c(job, checked=True)], job.scratch / "log"),
}
NEEDS: Final = {"fsdm": sys.executable, "requests": sys.executable, "splice": "cc"}  # the others: what they are called
