"""`fsdm status`: show how each chunk stands, and why."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fsdm.arguments import open_client
from fsdm.console import plain, print_json
from fsdm.errors import EXIT_OK, NotAvailableError

if TYPE_CHECKING:
    import argparse

    from fsdm.status import ChunkStatus, DiskStatus, Status

EXAMPLES: Final = """\
fsdm status -d data
fsdm status -d data ID
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these")


def run(arguments: argparse.Namespace) -> int:
    """Show how each chunk stands, what is left aside, and who reconciles."""
    from fsdm.layout import as_id

    ids = [as_id(one, "ID") for one in arguments.ids]
    with open_client(arguments) as client:
        seen = client.status()
    chunks = [chunk for chunk in seen.chunks.values() if not ids or chunk.id in ids]
    missing = [one for one in ids if one not in seen.chunks]
    if arguments.json:
        print_json(_status_document(seen, chunks))
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
        "paused": seen.paused,
        "braked": seen.braked,
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
    if seen.paused is not None:
        how = (
            ": ".join(str(seen.paused[key]) for key in ("by", "reason") if seen.paused.get(key))
            or "fsdm resume ends it"
        )
        print(f"PAUSED: nothing is downloaded, {plain(how)}", file=sys.stderr)
    if seen.braked is not None:
        how = f"{seen.braked.get('held_back')} of {seen.braked.get('of')} chunks: {seen.braked.get('what_to_do')}"
        print(f"BRAKED: deletes are held back, {plain(how)}", file=sys.stderr)
    print(f"{counts}; reconciler: {plain(seen.reconciler or 'none')}; {_disk_in_words(seen.disk)}", file=sys.stderr)


def _disk_in_words(disk: DiskStatus) -> str:
    from fsdm.size import readable

    free = f"{readable(disk.free_bytes)} free on the disk"
    return f"{free}, WHICH IS READ-ONLY" if disk.read_only else free
