"""The verbs of the command line: each is a module of this name, with `EXAMPLES`, `add_arguments` and `run`."""

from __future__ import annotations

from typing import Final

VERBS: Final = {
    "run": "reconcile in the foreground",
    "want": "ask for chunks",
    "delete": "ask for chunks to be deleted",
    "ls": "list the available chunks",
    "find": "print the path of the chunk that holds a block",
    "hold": "run a command while holding the chunk",
    "status": "show how each chunk stands, and why",
    "wait": "wait until what is asked for is so",
    "verify": "read every byte again, and compare it with READY",
    "protocol": "print the on-disk protocol",
    "schema": "print the JSON Schema of a want and of READY",
    "demo": "see it work, with nothing else running",
}
