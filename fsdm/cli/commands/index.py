"""`fsdm index`: show how the indexes of chunks stand, or have one made again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fsdm.cli.arguments import open_client
from fsdm.cli.output import row, show, tell
from fsdm.model.errors import InvalidInputError
from fsdm.model.index_format import as_index_name
from fsdm.model.units import count, readable
from fsdm.store.data_dir import unreadable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from fsdm.client import Client
    from fsdm.index.state import IndexState

EXAMPLES = """\
fsdm index -d data status
fsdm index -d data rebuild tx             # the one over all chunks, of those of the chunks
fsdm index -d data rebuild tx --chunks    # these as well
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=["status", "rebuild"], help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="which index; status shows all by default")
    parser.add_argument("--chunks", action="store_true", help="rebuild: make the index of each chunk again, too")


def run(arguments: Namespace) -> None:
    name = None if arguments.name is None else as_index_name(arguments.name, "NAME")
    with open_client(arguments) as client:
        states = [state for state in _states(client) if name in {None, state.name}]
        if name is not None and not states:
            hint = "fsdm index status shows those that there are"
            raise InvalidInputError(f"there is no index {name}", field="NAME", hint=hint)
        if arguments.action == "rebuild":
            _rebuild(client, arguments, name)
            return
    if arguments.chunks:
        raise InvalidInputError("goes with rebuild alone", field="--chunks", hint="leave it out")
    show(arguments, [asdict(state) for state in states], map(_line, states))
    if not arguments.json:
        for sentence in _sentences(states):
            tell(sentence)


def _states(client: Client) -> list[IndexState]:
    from fsdm.index.state import read_index_states

    try:
        return read_index_states(client.layout, client.available_places())
    except OSError as e:
        raise unreadable(client.layout, e) from e


def _rebuild(client: Client, arguments: Namespace, name: str | None) -> None:
    from fsdm.index.state import remove_index

    if name is None:
        raise InvalidInputError("name the index that is to be made again", field="NAME", hint="fsdm index status")
    places = client.available_places() if arguments.chunks else []
    remove_index(client.layout, name, places)
    show(arguments, {"removed": name, "chunks": len(places)})
    if not arguments.json:
        tell(f"index {name} is removed: the reconciler makes it again")


def _line(state: IndexState) -> str:
    chunks, runs = f"{state.indexed}/{state.chunks} chunks", f"{state.gathered} in {count(state.runs, 'run')}"
    failing = f"{state.failing} failing"
    return row(
        state.name, chunks, runs, failing, count(state.keys, "key"), readable(state.size_bytes + state.run_bytes)
    )


def _sentences(states: list[IndexState]) -> Iterator[str]:
    if not states:
        yield "there is no index: `fsdm docs indexes` says how to have one"
    for state in states:
        if state.failing:
            yield f"index {state.name}: `fsdm explain ID` says why it cannot be made of a chunk"
