"""The contenders of `transfers` that are Python, each a process of its own.

    python tools/bench/workers.py fsdm DIR JOBS CONNECTIONS (chunk|none) (digest|bare) (1.1|2) CHUNKS FILES STORE
    python tools/bench/workers.py requests PORT DIR THREADS LIST

FILES is a directory of this machine that fsdm may copy from, or ""; STORE the endpoint of s3://lake/, or "". They
print one JSON object: the wall time within (for fsdm the moment of the last READY), the CPU time, the peak memory.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.events import Event
    from fsdm.model.limits import Limits
    from fsdm.model.sources import Source

BLOCK: Final = 1 << 20
BUCKET: Final = "s3://lake/"
PATIENCE_S: Final = 120.0


def cpu_s() -> float:
    """Return the CPU time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> float:
    """Return the most memory that this process has had (proc_pid_status(5))."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def reconcile(data_dir: str, limits: Limits, sources: list[Source], chunks: int) -> None:
    """Print `ready`, and when the last of so many chunks is available; a failure ends it."""
    from fsdm import DataManager

    left, ended, failures, mutex = [chunks], threading.Event(), list[str](), threading.Lock()

    def on_event(event: Event) -> None:
        with mutex:
            if event.kind == "failed":
                failures.append(str(event))
            left[0] -= event.kind == "available"
            if failures or left[0] == 0:
                ended.set()

    with DataManager(data_dir, limits=limits, sources=sources, on_event=on_event):
        time.sleep(0.3)  # the first scan and the audit have passed then
        before = cpu_s()
        print("ready", flush=True)
        in_time = ended.wait(PATIENCE_S)
        now, used = time.monotonic(), cpu_s() - before
        if failures or not in_time:
            sys.exit(f"fsdm did not bring the chunks: {failures or f'not within {PATIENCE_S:g} s'}")
        print(json.dumps({"ended": now, "cpu_s": used, "peak_mib": peak_mib()}), flush=True)


def take_out_the_digest() -> None:
    """Let fsdm compute no digest, as others do; it has no such mode itself."""
    from fsdm.store.digests import Digests

    Digests.update = lambda *_: None  # type: ignore[method-assign]  # mypy sees that there is such a method


def race(threads: int, paths: list[str], make: Callable[[], Callable[[str], None]]) -> None:
    """Bring all paths in so many threads, each with what `make` gives it."""
    queue, errors = deque(paths), list[BaseException]()

    def work() -> None:
        try:
            bring = make()
            while queue:
                bring(queue.popleft())
        except IndexError:  # another thread took the last
            return
        except Exception as e:
            errors.append(e)

    began, before = time.monotonic(), cpu_s()
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    print(json.dumps({"wall_s": time.monotonic() - began, "cpu_s": cpu_s() - before, "peak_mib": peak_mib()}))


def plain_requests(port: int, directory: str) -> Callable[[], Callable[[str], None]]:
    """Load by requests in a plain loop, with blocks of a good size."""
    import requests

    def make() -> Callable[[str], None]:
        session = requests.Session()

        def bring(path: str) -> None:
            with (
                session.get(f"http://127.0.0.1:{port}/{path}", stream=True, timeout=30) as response,
                open(f"{directory}/{path}", "xb") as file,
            ):
                response.raise_for_status()
                file.writelines(response.iter_content(BLOCK))

        return bring

    return make


def main(argv: list[str]) -> None:
    """Be the contender that is named."""
    match argv:
        case [
            "fsdm",
            data_dir,
            jobs,
            connections,
            ("none" | "chunk") as durability,
            digest,
            ("1.1" | "2") as version,
            chunks,
            local,
            store,
        ]:
            from fsdm.model.limits import Limits
            from fsdm.model.sources import Source

            if digest == "bare":
                take_out_the_digest()
            limits = Limits(
                jobs=int(jobs),
                connections=int(connections),
                durability=durability,
                http_version=version,
                allow_dirs=(local,) if local else (),
                allow_sources=(BUCKET,) if store else (),
            )
            lake = {"match": BUCKET, "endpoint": store, "region": "us-east-1", "path_style": True}
            lake |= {"access_key_id": "id", "secret_access_key": "secret"}
            reconcile(data_dir, limits, [Source.model_validate(lake)] if store else [], int(chunks))
        case ["requests", port, directory, threads, file]:
            race(int(threads), Path(file).read_text().split(), plain_requests(int(port), directory))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
