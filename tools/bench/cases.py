"""The cases of `transfers`: jobs for all contenders, and the goals of fsdm in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

MB: Final = 1_000_000
ALL: Final = ("fsdm", "splice", "wget2", "curl", "rclone", "requests", "aria2c")
BARE: Final = ("fsdm bare", *ALL)
OVER_TLS: Final = ("fsdm", "wget2", "curl", "rclone", "aria2c")
CHECKED: Final = ("fsdm", "wget2", "curl", "rclone", "rclone checksum", "aria2c checksum")
FAR: Final = ("curl", "curl http2")
PEERS: Final = ("wget2", "curl", "rclone", "requests", "aria2c")


@dataclass(frozen=True, slots=True)
class Goal:
    """The wall time (or CPU, memory) of `of`: `at_most` times that of the best of `against`."""

    what: str
    at_most: float
    against: tuple[str, ...] = PEERS
    measure: str = "wall_s"
    of: str = "fsdm"


@dataclass(frozen=True, slots=True)
class Case:
    """A job for all contenders: chunks × files × bytes each, where to, and the guarantees."""

    how: str
    chunks: int
    files: int
    size_bytes: int
    goals: tuple[Goal, ...] = ()
    contenders: tuple[str, ...] = ALL
    memory: bool = False
    durable: bool = False
    sha256: bool = False
    tls: bool = False
    far: bool = False
    limited: bool = False
    s3: bool = False  # signed requests to a bucket, which a server answers that checks no signature
    local: bool = False  # the files are on the same disk, and come without a server
    connections: int = 8
    seconds: float = 30.0  # no further run begins then, after the third

    def smaller(self) -> Case:
        """Return the case with a tenth of the bytes."""
        if self.chunks >= 100:
            return replace(self, chunks=self.chunks // 10)
        return replace(self, size_bytes=self.size_bytes // 10)

    @property
    def what(self) -> str:
        size = f"{self.size_bytes // MB} MB" if self.size_bytes >= MB else f"{self.size_bytes // 1000} kB"
        return f"{self.chunks} × {self.files} × {size} {self.how}"


def _goal(what: str, at_most: float, *against: str, measure: str = "wall_s", of: str = "fsdm") -> Goal:
    return Goal(what, at_most, against or PEERS, measure, of)


LEANEST: Final = _goal("CPU a GB without a digest, against the leanest peer", 1.0, measure="cpu_s", of="fsdm bare")
FASTEST: Final = "BLAKE3 in every READY, against the fastest peer, which checks nothing"
CPU: Final = "CPU a GB with BLAKE3, against the leanest peer"
LARGE: Final = (10, 4, 50 * MB)
SMALL: Final = (200, 5, MB // 5)
CASES: Final = {
    "large": Case(
        "on disk",
        *LARGE,
        goals=(
            _goal("no digest, against the fastest peer", 0.75, of="fsdm bare"),
            _goal(FASTEST, 1.0),
            LEANEST,
        ),
        contenders=BARE,
    ),
    "memory": Case(
        "in memory",
        *LARGE,
        goals=(
            _goal("no digest, against the splice loop", 1.2, "splice", of="fsdm bare"),
            _goal(FASTEST, 1.2),
            LEANEST,
        ),
        contenders=BARE,
        memory=True,
    ),
    "tls": Case(
        "in memory, https",
        *LARGE,
        goals=(_goal(FASTEST, 1.0), _goal(CPU, 1.4, measure="cpu_s")),
        contenders=OVER_TLS,
        memory=True,
        tls=True,
        seconds=60.0,
    ),
    "durable": Case(
        "on disk, durable",
        *LARGE,
        goals=(_goal("against the fastest peer, then sync -f", 0.8),),
        durable=True,
        seconds=40.0,
    ),
    "sha256": Case(
        "on disk, sha256 given",
        *LARGE,
        goals=(
            _goal("against the fastest peer, then openssl on both cores", 0.95, "wget2", "curl", "rclone"),
            _goal("against rclone with its own check", 0.5, "rclone checksum"),
            _goal("against aria2c checksum=", 0.2, "aria2c checksum"),
        ),
        contenders=CHECKED,
        sha256=True,
        seconds=60.0,
    ),
    "small": Case("on disk", *SMALL, goals=(_goal(FASTEST, 1.1),), seconds=20.0),
    "small-memory": Case("in memory", *SMALL, goals=(_goal(FASTEST, 2.5),), memory=True, seconds=20.0),
    "small-tls": Case(
        "in memory, https",
        *SMALL,
        goals=(_goal(FASTEST, 1.5), _goal(CPU, 2.0, measure="cpu_s")),
        contenders=OVER_TLS,
        memory=True,
        tls=True,
        seconds=20.0,
    ),
    "far": Case(
        "in memory, https, 20 ms away",
        *(40, 5, MB // 5),
        goals=(_goal("over HTTP/1.1, against fsdm over HTTP/2", 1.0, "fsdm http2"), _goal(FASTEST, 1.0, *FAR)),
        contenders=("fsdm", "fsdm http2", *FAR),
        memory=True,
        tls=True,
        far=True,
        seconds=30.0,
    ),
    "small-durable": Case(
        "on disk, durable",
        *SMALL,
        goals=(_goal("against the fastest peer, then sync -f", 1.0),),
        durable=True,
        seconds=20.0,
    ),
    "one": Case("on disk", *(1, 1, 200 * MB), goals=(_goal("against the fastest peer", 1.0),), seconds=15.0),
    "limited": Case(
        "on disk, 20 MB/s a connection",
        *(2, 4, 25 * MB),
        goals=(_goal("against the fastest peer with its best settings", 0.6),),
        contenders=("fsdm", "wget2", "curl", "rclone", "aria2c"),
        limited=True,
        seconds=20.0,
    ),
    "file": Case(
        "on disk, from the same disk",
        *LARGE,
        goals=(_goal("BLAKE3 in every READY, against cp --reflink=auto", 1.3, "cp"),),
        contenders=("fsdm", "cp"),
        local=True,
        seconds=20.0,
    ),
    "s3": Case(
        "on disk, from a bucket",
        *LARGE,
        goals=(_goal("BLAKE3 in every READY, against rclone's s3", 1.0, "rclone s3"),),
        contenders=("fsdm", "rclone s3"),
        s3=True,
        seconds=40.0,
    ),
    "sixteen": Case(
        "on disk, 16 transfers",
        *(4, 4, 50 * MB),
        goals=(_goal("peak memory", 80.0, measure="peak_mib"),),
        contenders=("fsdm",),
        connections=16,
        seconds=10.0,
    ),
}
