"""The verbs of the command line: each is a module of this name, with `EXAMPLES`, `add_arguments` and `run`."""

from __future__ import annotations

from typing import Final

VERBS: Final = {
    "run": "reconcile in the foreground",
    "want": "ask for chunks",
    "delete": "ask for chunks to be deleted",
    "sync": "make what is wanted equal to a list",
    "retry": "try again now what has failed",
    "release": "let go the deletes that the brake holds back",
    "pause": "download nothing, until it is resumed",
    "resume": "let downloads go on",
    "ls": "list the available chunks",
    "find": "print the path of the chunk that holds a block",
    "hold": "run a command while holding the chunk",
    "status": "show how each chunk stands, and why",
    "map": "draw which blocks are here, coming, retiring, missing or doubly covered",
    "explain": "say why a chunk stands as it does, and what to do",
    "holders": "show which processes hold a chunk",
    "wait": "wait until what is asked for is so",
    "verify": "read every byte again, and compare it with READY",
    "protocol": "print the on-disk protocol",
    "docs": "print a page of the documentation",
    "man": "print the manual page",
    "completion": "print what makes a shell complete",
    "schema": "print the JSON Schema of a want and of READY",
    "demo": "see it work, with nothing else running",
}
