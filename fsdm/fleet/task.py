"""The part of a query that runs on a node: refs are taken, and the user's function is called while they are held.

A chunk that is not here is told, and is no error: another node is asked for it. What the function raises is raised,
with a note of where it was.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from fsdm.model.errors import FsdmError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fsdm.fleet.routes import Part
    from fsdm.model.layout import Place
    from fsdm.store.refs import ChunkRef

    Take = Callable[[Place], ChunkRef | None]

NOT_HERE: Final = "the chunk is not here"
How = Literal["each", "all"]  # the function is called for each chunk, or once with all of them


@dataclass(frozen=True, slots=True)
class HeldChunk:
    """A chunk that is held while the function of a query runs; `blocks` are those that it is to answer for.

    They are a half-open range within `ref.block_range`: the chunk may have others, which another chunk, or nobody, is
    asked for.
    """

    ref: ChunkRef
    blocks: range

    @property
    def path(self) -> Path:
        """The directory with the chunk's files, and nothing else in it; it stays as it is while the function runs."""
        return self.ref.path

    @property
    def id(self) -> str:
        """The chunk's id: 64 hex digits."""
        return self.ref.id

    @property
    def dataset_id(self) -> str:
        """The id of the chunk's dataset: 64 hex digits."""
        return self.ref.dataset_id


@dataclass(frozen=True, slots=True)
class Work:
    """A task as it is sent: the pickled function, how it is called, and the parts with their numbers in the query.

    `key`: the index, and the key that a chunk must hold to be worked on.
    """

    function: bytes
    how: How
    parts: Sequence[tuple[int, Part]]
    key: tuple[str, bytes] | None = None


@dataclass(slots=True)
class Answer:
    """The answer of a task: values by the number of a part, and why a part could not be answered for.

    A part without a value and without a reason holds no such key. A value for all has the number of the first.
    `died`: the number of the part that its process ended with, and how.
    """

    values: dict[int, Any] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    died: tuple[int, str] | None = None


def work_on(take: Take, node: str, work: Work, begins: Callable[[int], object] | None = None) -> Answer:
    """Do the work, as far as the chunks are here: `take` takes a ref to one, or returns None.

    `begins` is called with the number of each part before it is read.

    Raises:
        Exception: whatever the function raises.
    """
    function = pickle.loads(work.function)  # noqa: S301 who may send it may run anything here: Dask's own terms
    answer = Answer()
    held: list[tuple[int, HeldChunk]] = []
    try:
        for number, chunk in _chunks(take, work, answer):
            if work.how == "all":
                held.append((number, chunk))
                continue
            with chunk.ref:
                if begins is not None:
                    begins(number)
                answer.values[number] = _called(function, chunk, node, chunk)
        if held:
            if begins is not None:
                begins(held[0][0])
            answer.values[held[0][0]] = _called(function, [chunk for _, chunk in held], node, held[0][1])
    finally:
        for _, chunk in held:
            chunk.ref.close()
    return answer


def _chunks(take: Take, work: Work, answer: Answer) -> Iterator[tuple[int, HeldChunk]]:
    """Take a ref to each chunk that is here, and holds the key; it is the caller's to close."""
    for number, part in work.parts:
        try:
            ref = take(part.place)
            if ref is None:
                answer.refused[number] = NOT_HERE
            elif work.key is None or _holds(ref, *work.key, number, answer):
                yield number, HeldChunk(ref, part.blocks)
        except (FsdmError, OSError) as e:  # as too many open files, or a disk that has gone: others may have it
            answer.refused[number] = str(e)


def _holds(ref: ChunkRef, name: str, key: bytes, number: int, answer: Answer) -> bool:
    """Tell whether a chunk holds a key; close the ref where it does not."""
    is_held = False
    try:
        index = ref.index(name)
        if index is None:
            answer.refused[number] = f"the chunk has no index {name!r:.80} yet"
        else:
            with index:
                is_held = key in index
    finally:
        if not is_held:
            ref.close()
    return is_held


def _called(function: Callable[[Any], Any], given: object, node: str, chunk: HeldChunk) -> Any:
    try:
        return function(given)
    except Exception as e:
        blocks = chunk.ref.block_range
        more = "" if given is chunk else " and others"
        e.add_note(f"on node {node}, of chunk {chunk.id} (blocks [{blocks.start}, {blocks.stop})){more}")
        raise
