"""What the demo's other processes do: `python -m fsdm.cli.demo.roles reconcile DIR [MAX_BYTES]` and `… read DIR`.

Each writes JSON lines to stdout and takes JSON lines from stdin; where stdin ends, so does the process, so that nothing
outlives the demo, however that ends. A reader hashes what it holds all the time, and reports whatever is not as READY
says.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from itertools import cycle
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from fsdm.client import Client
from fsdm.model.errors import FsdmError
from fsdm.model.layout import READY
from fsdm.transfer.sink import digest_of

if TYPE_CHECKING:
    from fsdm.model.events import Event
    from fsdm.store.refs import ChunkRef

REST_S: Final = 0.03
JOBS: Final = 4
STDOUT: Final = 1


def tell(**document: object) -> None:
    """One line to the demo, whole: one write of less than PIPE_BUF (pipe(7)). The demo may have ended."""
    with suppress(BrokenPipeError):
        os.write(STDOUT, json.dumps(document).encode() + b"\n")


def reconcile(data_dir: str, max_bytes: str = "") -> None:
    """Reconcile until stdin ends, within a budget if there is one; tell every event."""
    from fsdm.manager import DataManager
    from fsdm.model.limits import Limits

    def on_event(event: Event) -> None:
        tell(kind=event.kind, chunk_id=event.chunk_id, text=event.text)

    limits = Limits(jobs=JOBS, max_bytes=int(max_bytes) if max_bytes else None)
    with DataManager(data_dir, limits=limits, on_event=on_event) as manager:
        tell(kind="ready", reconciling=manager.reconciling)
        sys.stdin.read()


class Reader:
    """Holds refs, and hashes what it holds; one that roams takes and drops them by itself, all over the datasets."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._held: dict[str, ChunkRef] = {}
        self._roads = cycle([("", 0)])
        self._roaming = False
        self._checks = 0
        self._bytes = 0

    def obey(self, command: dict[str, Any]) -> None:
        """Carry out one command, and reply to it."""
        reply: object = None
        match command:
            case {"verb": "hold", "dataset_id": dataset_id, "block": block}:
                reply = self._hold(dataset_id, block)
            case {"verb": "check", "chunk_id": chunk_id}:
                reply = self._check(self._held[chunk_id])
            case {"verb": "drop", "chunk_id": chunk_id}:
                self._held.pop(chunk_id).close()
            case {"verb": "roam", "roads": roads}:
                self._roads, self._roaming = cycle(map(tuple, roads)), True
        tell(kind="reply", number=command["number"], reply=reply)

    def turn(self) -> None:
        """What it does while nobody asks for anything."""
        for ref in list(self._held.values()):
            self._check(ref)
        if self._roaming:
            self._visit(*next(self._roads))

    def _visit(self, dataset_id: str, block: int) -> None:
        ref = self._client.find_chunk(dataset_id, block)
        if ref is not None:
            with ref:
                if block not in ref.block_range:
                    self._violation(ref, f"it was found for block {block}, and covers {ref.block_range}")
                self._check(ref)

    def end(self) -> None:
        """Say what was done."""
        tell(kind="ended", checks=self._checks, bytes=self._bytes)

    def _hold(self, dataset_id: str, block: int) -> str | None:
        ref = self._client.find_chunk(dataset_id, block)
        if ref is None:
            return None
        chunk_id = ref.id
        before = self._held.setdefault(chunk_id, ref)
        if before is not ref:
            ref.close()
        return chunk_id

    def _check(self, ref: ChunkRef) -> int:
        """Hash every file of a chunk that is held; how many bytes were as READY says."""
        seen = 0
        try:
            manifest = json.loads((ref.path.parent / READY).read_bytes())
            names = {entry.name for entry in ref.path.iterdir()}
            if names != manifest["files"].keys():
                self._violation(ref, f"the files are {sorted(names)}, READY says {sorted(manifest['files'])}")
            for name, entry in manifest["files"].items():
                digest, size = digest_of(str(ref.path / name), "blake3"), (ref.path / name).stat().st_size
                if (size, digest) != (entry["size"], entry["blake3"]):
                    self._violation(ref, f"{name} is not what READY says: {size} bytes, sha256 {digest}")
                seen += size
        except OSError as e:  # what is held stays where it is: that is the promise
            self._violation(ref, f"it cannot be read while it is held: {e}")
        self._checks += 1
        self._bytes += seen
        return seen

    def _violation(self, ref: ChunkRef, text: str) -> None:
        tell(kind="violation", chunk_id=ref.id, text=text)


def read(data_dir: str) -> None:
    """Obey until stdin ends; meanwhile hash what is held."""
    commands: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    with Client(data_dir) as client:
        reader = Reader(client)
        tell(kind="ready")
        while (command := _next(commands)) is not None:
            if command:
                reader.obey(json.loads(command))
            else:
                reader.turn()
        reader.end()


def _listen(commands: SimpleQueue[str | None]) -> None:
    for line in sys.stdin:
        commands.put(line)
    commands.put(None)


def _next(commands: SimpleQueue[str | None]) -> str | None:
    """The next command, "" where there is none for a while, None at the end."""
    try:
        return commands.get(timeout=REST_S)
    except Empty:
        return ""


def main(role: str, data_dir: str, *arguments: str) -> None:
    """Play a role until stdin ends."""
    try:
        {"reconcile": reconcile, "read": read}[role](data_dir, *arguments)
    except (FsdmError, OSError) as e:
        sys.exit(f"{e}\n{getattr(e, 'hint', '')}".strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
