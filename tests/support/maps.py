"""Coverage to draw."""

from collections.abc import Sequence
from typing import Any, get_args

from hypothesis import strategies as st

from fsdm.model.state import Standing
from fsdm.status.chunk_status import ChunkStatus
from fsdm.status.coverage import KIND_OF, KINDS, CoverageMap, Kind
from fsdm.status.map.words import LEGEND, Caption
from tests.support.chunks import an_id

CAPTION = Caption("data", 0.0, ("reconciler: none",))

EVIL = "\x1b[31m</title></style><script>alert(1)</script>\"'&\n\udc80"


def of_each_kind(**of_failing: str) -> CoverageMap:
    """A dataset of 61 blocks, ten of each kind that is asked for, in the legend's order."""
    return CoverageMap.of([
        a_chunk(0, 10, size=2000, id="1" * 64),
        a_chunk(10, 20, "downloading", id="2" * 64),
        a_chunk(20, 30, "failed", **({"error": "HTTP 404", "id": "3" * 64} | of_failing)),
        a_chunk(30, 40, "retiring", id="4" * 64),
        a_chunk(40, 50, id="5" * 64),
        a_chunk(40, 50, id="6" * 64),
        a_chunk(60, 61, id="7" * 64),
    ])  # fmt: skip


ASKED_FOR = [kind for kind in LEGEND if kind != "known"]


def thousands() -> CoverageMap:
    """5,000 chunks with a gap of one block after each hundredth."""
    return CoverageMap.of([a_chunk(1000 * n, 1000 * n + 1000 - (n % 100 == 99), id=f"{n:064x}") for n in range(5000)])


DATASET = "d" * 64


def a_chunk(start: int, end: int, state: Standing = "available", size: int = 0, **says: Any) -> ChunkStatus:
    """A chunk of blocks `[start, end)`; `says` is its id, dataset, error."""
    says = {"id": an_id(), "dataset_id": DATASET, **says}
    return ChunkStatus(state=state, block_range=range(start, end), size_bytes=size, **says)


def of_block(chunks: Sequence[ChunkStatus], block: int) -> tuple[Kind, list[str]]:
    """The kind of one block, and the chunks that make it so, as the module's docstring says it."""
    over: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for chunk in chunks:
        if chunk.block_range is not None and block in chunk.block_range:
            over[KIND_OF[chunk.state]].append(chunk.id)
    if len(over["here"]) > 1:
        return "doubled", over["here"]
    order: tuple[Kind, ...] = ("here", "coming", "failing", "retiring", "known")
    return next(((kind, over[kind]) for kind in order if over[kind]), ("missing", []))


@st.composite
def some_chunks(draw: st.DrawFn) -> list[ChunkStatus]:
    """Few blocks, so that ranges overlap, nest, touch and tie."""
    ranges = st.tuples(st.integers(0, 30), st.integers(1, 4) | st.integers(1, 30), st.sampled_from(get_args(Standing)))
    found = draw(st.lists(ranges, min_size=1, max_size=14))
    return [
        a_chunk(start, start + length, state, size=number, id=f"{number:064x}")
        for number, (start, length, state) in enumerate(found)
    ]
