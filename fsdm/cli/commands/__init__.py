"""The verbs: each is a module with `EXAMPLES`, `run`, and perhaps `add_arguments`."""

from typing import Final

VERBS: Final = {
    "run": "reconcile in the foreground",
    "want": "ask for chunks",
    "register": "let chunks be known, to be fetched when somebody asks for them",
    "delete": "ask for chunks to be deleted",
    "sync": "make the wanted chunks equal to a list",
    "place": "say which worker of a fleet is to hold which chunks",
    "retry": "try failed chunks again now",
    "release": "release the deletes that the brake holds back",
    "pause": "stop downloads until they are resumed",
    "resume": "let downloads go on",
    "ls": "list the available chunks",
    "acquire": "run a command while holding a chunk, fetched before where it is not here",
    "find": "print the path of the chunk that holds a block, or of those that hold a key",
    "hold": "run a command while holding the chunk, or those of a range",
    "index": "show how the indexes of chunks stand, or have one made again",
    "status": "show the state of each chunk, and why",
    "map": "draw which blocks are here, coming, retiring, missing or doubly covered",
    "ui": "serve a page to look at, of what any process reconciles",
    "explain": "explain the state of a chunk, and what to do",
    "holders": "show which processes hold a chunk",
    "wait": "wait until wants and deletes are carried out",
    "verify": "read every byte again, and compare it with READY",
    "protocol": "print the on-disk protocol",
    "docs": "print a page of the documentation",
    "man": "print the manual page",
    "completion": "print the completion script of a shell",
    "schema": "print the JSON Schema of a want and of READY",
    "demo": "see it work, with nothing else running",
}
