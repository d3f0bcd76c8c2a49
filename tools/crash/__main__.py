"""Crash everywhere: a kill at each step, a power failure at each call.

    python -m tools.crash kill [LIFE …] [--verbose]       SIGKILL after each change of the disk: see `kill`
    python -m tools.crash power [LIFE …] [--bound N]      every state that a disk may be left in: see `power`
    python -m tools.crash image [LIFE …] [--kind ext4]    a real file system, shut down hard: see `image`
    python -m tools.crash lives                           list the lives

The exit code is 1 where a promise does not hold; stdout tells where.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from tools.crash.check import ViolationError
from tools.crash.image import KINDS, shut_down_everywhere
from tools.crash.kill import kill_everywhere
from tools.crash.lives import LIVES
from tools.crash.power import BOUND, fail_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the three on some lives; return 1 where a promise does not hold."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.crash", description=__doc__, formatter_class=how)
    parser.add_argument("how", choices=["kill", "power", "image", "lives"])
    parser.add_argument("lives", nargs="*", metavar="LIFE", help="the lives to try (default: all)")
    parser.add_argument("--bound", type=int, default=BOUND, help="try all combinations of an instant up to so many")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="the file system of the image")
    parser.add_argument("--dir", default=None, help="the directory to work in; best in memory")
    parser.add_argument("--verbose", action="store_true", help="print each step")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.lives) - LIVES.keys():
        parser.error(f"there is no life {', '.join(sorted(unknown))}; `lives` lists them")
    if asked.how == "lives":
        for name, story in LIVES.items():
            print(f"{name:20} {story.live.__doc__}")
        return 0
    tell: Callable[[str], object] = print if asked.verbose else str
    hows: dict[str, Callable[[str, str], object]] = {
        "kill": lambda name, scratch: f"{kill_everywhere(name, scratch, tell)} steps",
        "power": lambda name, scratch: fail_everywhere(name, scratch, asked.bound),
        "image": lambda name, scratch: f"{shut_down_everywhere(name, scratch, asked.kind, tell)} points",
    }
    return int(any([not _holds(hows[asked.how], name, asked.dir) for name in asked.lives or LIVES]))  # noqa: C419 all


def _holds(how: Callable[[str, str], object], name: str, where: str | None) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fsdm-crash-", dir=where, ignore_cleanup_errors=True) as scratch:
        try:
            print(f"{name:20} {how(name, scratch)}, {time.monotonic() - began:.1f} s", flush=True)
        except ViolationError as e:
            print(f"{name:20} DOES NOT HOLD: {e}".replace(f"{scratch}{os.sep}", ""), flush=True)
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
