"""The copies of each block of a dataset: its chunks in their order, in as many parts as can be seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.fleet.inventory import Chunks, Workers
    from fsdm.fleet.placing import Placement
    from fsdm.fleet.wants import Wants

Kind = Literal["here", "coming", "failing", "missing"]  # as the style sheet of `fsdm map` calls them
MEANINGS: Final[dict[Kind, str]] = {
    "here": "as many copies are confirmed as are asked for",
    "coming": "so many are in the lists, and not all of them are confirmed",
    "failing": "fewer are in the lists",
    "missing": "no live worker has confirmed one",
}
PARTS: Final = 400  # of a dataset: about 3 px of a screen each


@dataclass(frozen=True, slots=True)
class Part:
    """Chunks that follow one another: their blocks, and what is the worst of any of them.

    `confirmed` and `listed`: the fewest copies of a chunk. `left` and `width`: the place in its dataset, from 0 to 1.
    """

    start: int
    end: int
    chunks: int
    confirmed: int
    listed: int
    wanted: int
    kind: Kind
    left: float
    width: float


def parts_of(wants: Wants, chunks: Chunks, workers: Workers, placement: Placement) -> Iterator[tuple[str, list[Part]]]:
    """Return the parts of each dataset, by its id."""
    confirmed = np.bincount(placement.confirmed // len(workers), minlength=len(chunks))
    by_dataset: dict[str, list[int]] = {}
    for number in wants.by_blocks().tolist():
        by_dataset.setdefault(wants.dataset(number), []).append(number)
    for dataset, numbers in by_dataset.items():
        cuts = np.linspace(0, len(numbers), min(PARTS, len(numbers)) + 1).astype(int).tolist()
        parts = []
        for first, last in pairwise(cuts):
            some = np.array(numbers[first:last])
            sure, kept, wanted = confirmed[some], placement.kept[some], chunks.replicas[some]
            kind: Kind = "here"
            if (sure == 0).any():
                kind = "missing"
            elif (kept < wanted).any():
                kind = "failing"
            elif (sure < wanted).any():
                kind = "coming"
            worst = int(np.argmin(sure))
            parts.append(
                Part(
                    wants.blocks(int(some[0]))[0],
                    max(wants.blocks(int(number))[1] for number in some),
                    len(some),
                    int(sure.min()),
                    int(kept.min()),
                    int(wanted[worst]),
                    kind,
                    first / len(numbers),
                    (last - first) / len(numbers),
                )
            )
        yield dataset, parts
