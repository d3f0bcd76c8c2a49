"""The process that makes `known.names` anew: a million registrations take more memory than a reconciler is to have."""

from __future__ import annotations

import json
import os
import sys

from fsdm.model.layout import Layout
from fsdm.store.known_names import write_names


def main() -> None:
    """Carry out the job on stdin, and report how many registrations are named."""
    os.nice(10)
    job = json.loads(sys.stdin.buffer.read())
    try:
        report: dict[str, object] = {"count": write_names(Layout(job["root"]))}
    except OSError as e:
        report = {"error": str(e)}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
