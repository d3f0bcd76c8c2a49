"""What each verb of the command line does: arguments in, output and an exit code out."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from dataclasses import asdict
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsdm.errors import EXIT_NOT_CONVERGED, EXIT_OK, EXIT_USAGE, InvalidInputError, NotAvailableError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fsdm.client import Client
    from fsdm.events import Event
    from fsdm.model import DataChunk
    from fsdm.refs import ChunkRef
    from fsdm.status import ChunkStatus, DiskStatus, Status


def _data_dir(arguments: argparse.Namespace) -> str:
    if not arguments.data_dir:
        raise InvalidInputError("which data directory?", hint="pass -d DIR, or set FSDM_DATA_DIR")
    return str(arguments.data_dir)


def _client(arguments: argparse.Namespace) -> Client:
    from fsdm.client import Client

    return Client(_data_dir(arguments))


def _print_json(document: object) -> None:
    print(encodable(json.dumps(document, ensure_ascii=False)))


def encodable(text: str) -> str:
    """JSON in which every character can be written: names on disk may be no Unicode at all."""
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(text: str) -> str:
    """Text that moves no cursor and hides nothing: names and errors may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---------------------------------------------------------------------------------------------------------- reconciling


def run(arguments: argparse.Namespace) -> int:
    """Reconcile until SIGTERM or SIGINT, or (`--once`) until there is nothing left that can be done."""
    from fsdm.limits import Limits
    from fsdm.manager import run_forever, run_once

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    show = _show_json_event if arguments.json else _show_event
    data_dir = _data_dir(arguments)
    limits = Limits(
        jobs=arguments.jobs,
        connections=arguments.connections,
        per_host=arguments.connections_per_host,
        per_file=arguments.connections_per_file,
        bytes_per_s=arguments.limit_rate,
        max_bytes=arguments.max_bytes,
        keep_free_bytes=arguments.keep_free,
        durability=arguments.durability,
        allow_hosts=tuple(arguments.allow_host),
        deny_private=arguments.deny_private,
    )
    if not arguments.once:
        run_forever(data_dir, stop, limits, show, wait=arguments.wait, allow_unknown_fs=arguments.allow_unknown_fs)
        return EXIT_OK
    troubles = run_once(data_dir, stop, limits, show, wait=arguments.wait, allow_unknown_fs=arguments.allow_unknown_fs)
    for name, why in troubles.items():
        print(f"fsdm: {plain(name)}: {plain(why)}", file=sys.stderr)
    return EXIT_NOT_CONVERGED if troubles else EXIT_OK


def _show_event(event: Event) -> None:
    text = str(event)
    encoding = sys.stderr.encoding or "ascii"
    print(plain(text).encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def _show_json_event(event: Event) -> None:
    print(encodable(json.dumps(asdict(event), ensure_ascii=False)), flush=True)


# -------------------------------------------------------------------------------------------------------------- intents


def want(arguments: argparse.Namespace) -> int:
    """Place a want for each document; those that cannot be taken do not keep the others."""
    code, placed = EXIT_OK, []
    with _client(arguments) as client:
        for name, text, marker in _documents(arguments.files):
            try:
                chunk = _parse_want(text, marker)
            except InvalidInputError as e:
                print(f"fsdm: {name}: {plain(str(e))}", file=sys.stderr)
                code = EXIT_USAGE
                continue
            client.download_chunk(chunk)
            placed.append(chunk.id)
    if arguments.json:
        _print_json({"wanted": placed})
    return code


def _parse_want(text: bytes, marker: str) -> DataChunk:
    from fsdm.layout import is_id
    from fsdm.model import DataChunk

    return DataChunk.parse_want(text, marker) if is_id(marker) else DataChunk.parse(text)


def _documents(names: list[str]) -> Iterator[tuple[str, bytes, str]]:
    """(what to call it, its text, the name of its file) of each document; a file has one, or one a line."""
    for name in names:
        try:
            text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as e:
            raise InvalidInputError(f"{name} cannot be read: {e.strerror}", hint="check the path") from e
        lines = [line for line in text.splitlines() if line.strip()]
        if not _is_json(text) and any(_is_json(line) for line in lines):
            for number, line in enumerate(lines, 1):
                yield f"{name}:{number}", line, ""
        else:
            yield name, text, os.path.basename(name)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def delete(arguments: argparse.Namespace) -> int:
    """Place a delete marker for each id."""
    from fsdm.layout import as_id

    ids = [as_id(one, "ID") for one in arguments.ids]
    with _client(arguments) as client:
        for chunk_id in ids:
            client.delete_chunk(chunk_id)
    if arguments.json:
        _print_json({"deleted": ids})
    return EXIT_OK


# -------------------------------------------------------------------------------------------------------------- reading


def ls(arguments: argparse.Namespace) -> int:
    """List the available chunks, by dataset and block."""
    with _client(arguments) as client:
        places = client.available_places()
    if arguments.json:
        _print_json(
            [
                {"id": p.chunk_id, "dataset_id": p.dataset_id, "start": p.block_range.start, "end": p.block_range.stop}
                for p in places
            ]
        )
        return EXIT_OK
    for place in places:
        blocks = place.block_range
        row = (place.dataset_id, blocks.start, blocks.stop, place.chunk_id) if arguments.long else (place.chunk_id,)
        print(*row, sep="\t")
    return EXIT_OK


def find(arguments: argparse.Namespace) -> int:
    """Print the path of the files of the chunk that is responsible for a block."""
    with _client(arguments) as client, _found(client, arguments) as ref:
        if arguments.json:
            blocks = ref.block_range
            _print_json(
                {
                    "id": ref.id,
                    "dataset_id": ref.dataset_id,
                    "start": blocks.start,
                    "end": blocks.stop,
                    "path": str(ref.path),
                }
            )
        else:
            print(ref.path)
    return EXIT_OK


def hold(arguments: argparse.Namespace) -> int:
    """Become CMD, with the lock on a descriptor that CMD inherits: the chunk is held for exactly as long as it runs."""
    client = _client(arguments)
    ref = _found(client, arguments)
    environment = {**os.environ, "FSDM_CHUNK_PATH": str(ref.path), "FSDM_CHUNK_ID": ref.id}
    ref.keep_over_exec()
    try:
        os.execvpe(arguments.command[0], arguments.command, environment)
    except OSError as e:
        print(f"fsdm: {arguments.command[0]}: {e.strerror}", file=sys.stderr)
        return 127 if isinstance(e, FileNotFoundError) else 126


def _found(client: Client, arguments: argparse.Namespace) -> ChunkRef:
    ref = client.find_chunk(arguments.dataset, arguments.block)
    if ref is None:
        raise NotAvailableError(f"no available chunk of {arguments.dataset} holds block {arguments.block}")
    return ref


def status(arguments: argparse.Namespace) -> int:
    """Show how each chunk stands, what is left aside, and who reconciles."""
    from fsdm.layout import as_id

    ids = [as_id(one, "ID") for one in arguments.ids]
    with _client(arguments) as client:
        seen = client.status()
    chunks = [chunk for chunk in seen.chunks.values() if not ids or chunk.id in ids]
    missing = [one for one in ids if one not in seen.chunks]
    if arguments.json:
        _print_json(_status_document(seen, chunks))
    else:
        _print_status(seen, chunks)
    if missing:
        raise NotAvailableError(f"nothing is known of {', '.join(missing)}")
    return EXIT_OK


def _status_document(seen: Status, chunks: list[ChunkStatus]) -> dict[str, Any]:
    documents = []
    for chunk in chunks:
        blocks = chunk.block_range
        document = asdict(chunk) | {"block_range": blocks and {"start": blocks.start, "end": blocks.stop}}
        documents.append(document)
    return {
        "reconciler": seen.reconciler,
        "disk": asdict(seen.disk),
        "chunks": documents,
        "oddities": [asdict(oddity) for oddity in seen.oddities],
    }


def _print_status(seen: Status, chunks: list[ChunkStatus]) -> None:
    for chunk in chunks:
        blocks = f"[{chunk.block_range.start}, {chunk.block_range.stop})" if chunk.block_range else "-"
        total = "" if chunk.total_bytes in {None, chunk.size_bytes} else f"/{chunk.total_bytes}"
        print(chunk.id, chunk.state, blocks, f"{chunk.size_bytes}{total}", plain(chunk.error or ""), sep="\t")
    for oddity in seen.oddities:
        print("-", "ignored", "-", "-", plain(f"{oddity.path}: {oddity.why}"), sep="\t")
    states = dict.fromkeys(chunk.state for chunk in chunks)
    counts = ", ".join(f"{sum(c.state == state for c in chunks)} {state}" for state in states) or "no chunks"
    print(f"{counts}; reconciler: {plain(seen.reconciler or 'none')}; {_disk_in_words(seen.disk)}", file=sys.stderr)


def _disk_in_words(disk: DiskStatus) -> str:
    from fsdm.size import readable

    free = f"{readable(disk.free_bytes)} free on the disk"
    return f"{free}, WHICH IS READ-ONLY" if disk.read_only else free


def wait(arguments: argparse.Namespace) -> int:
    """Wait until what is asked for is so; with ids, for these only."""
    import time

    from fsdm.layout import as_id

    ids = [as_id(one, "ID") for one in arguments.ids]
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    states = {}
    with _client(arguments) as client:
        for chunk_id in ids:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            states[chunk_id] = "available" if client.wait(chunk_id, left) else "gone"
        if not ids:
            client.wait_converged(arguments.timeout)
    if arguments.json:
        _print_json({"converged": True, "chunks": states})
    else:
        for chunk_id, state in states.items():
            print(chunk_id, state, sep="\t")
    return EXIT_OK


# ------------------------------------------------------------------------------------------------------------ documents


def protocol(arguments: argparse.Namespace) -> int:
    """Print the on-disk protocol."""
    text = package_files("fsdm").joinpath("PROTOCOL.md").read_text(encoding="utf-8")
    if arguments.json:
        _print_json({"protocol": text})
    else:
        print(text, end="")
    return EXIT_OK


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of the documents that others write and read."""
    from fsdm.model import DataChunk, Manifest

    schemas = {"want": DataChunk.want_schema(), "ready": Manifest.model_json_schema()}
    print(
        json.dumps(schemas[arguments.document] if arguments.document else schemas, indent=None if arguments.json else 2)
    )
    return EXIT_OK


def demo(arguments: argparse.Namespace) -> int:
    """Play the main job with nothing else running."""
    from fsdm.demo import demo as play

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # it cleans up on its way out
    data_dir = Path(arguments.data_dir) if arguments.data_dir else None
    return EXIT_OK if play(data_dir, scale=arguments.scale, as_json=arguments.json) else EXIT_NOT_CONVERGED
