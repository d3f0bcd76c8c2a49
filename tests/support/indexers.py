"""Commands and settings of indexers, for tests."""

import shlex
import sys
from pathlib import Path

from fsdm.model.indexes import Index


def command(tmp_path: Path, text: str, name: str = "indexer.py") -> str:
    """Write a Python program, and return the words that run it: it finds the chunk's files in `data`."""
    path = tmp_path / name
    path.write_text(f"import json, os, sys, time\nfrom pathlib import Path\ndata = Path(sys.argv[1])\n{text}\n")
    return shlex.join([sys.executable, "-S", str(path)])


# emits a key of four bytes for each four bytes of a file
BY_FOUR = """
for file in (data / name for name in sys.stdin.read().split("\\0")[:-1]):
    for at in range(0, file.stat().st_size, 4):
        key = file.read_bytes()[at : at + 4]
        print(json.dumps({"hex": key.hex(), "file": file.name, "offset": at, "length": 4}))
"""


def by_four(tmp_path: Path, **settings: object) -> Index:
    """An index of every four bytes of a chunk's files."""
    return Index(**{"name": "four", "command": command(tmp_path, BY_FOUR), **settings})  # type: ignore[arg-type]
