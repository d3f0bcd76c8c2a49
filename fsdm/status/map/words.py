"""The words of a map: plain text, safe to print, not yet escaped for markup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Final, TypeVar

from fsdm.model.units import count, how_far, readable
from fsdm.status.coverage import KIND_OF, KINDS
from fsdm.status.terminal import plain
from fsdm.store.leader_lock import describe_holder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fsdm.status.chunk_status import ChunkStatus, Status
    from fsdm.status.coverage import Coverage, CoverageMap, Kind, Mark, Segment

T = TypeVar("T")

MEANINGS: Final[Mapping[Kind, str]] = {
    "here": "one available chunk covers it",
    "coming": "wanted: downloading, or about to",
    "failing": "wanted, and it fails",
    "retiring": "deleted: goes when its last ref goes",
    "doubled": "more than one available chunk covers it",
    "missing": "no chunk covers it",
    "known": "registered: comes when it is asked for",
}
LEGEND: Final = tuple(MEANINGS)
TROUBLES: Final[Mapping[Kind, str]] = {"missing": "gap", "doubled": "double cover", "failing": "failing chunk"}
EMPTY: Final = "No chunk is here, and none is wanted."

_ID_SHOWN: Final = 12
_ERROR_SHOWN: Final = 300
_SEGMENTS_SHOWN: Final = 3  # of each kind, where many are drawn as one


@dataclass(frozen=True, slots=True)
class Caption:
    """The directory, when it was looked at (seconds since the epoch), and what else to know."""

    data_dir: str
    at: float
    facts: tuple[str, ...]

    @classmethod
    def of(cls, data_dir: str, at: float, seen: Status) -> Caption:
        """Caption a status that was read at `at`."""
        facts = [
            f"reconciler: {plain(describe_holder(seen.reconciler))}",
            f"{readable(seen.disk.free_bytes)} free on the disk{', WHICH IS READ-ONLY' * seen.disk.read_only}",
            "DOWNLOADS ARE PAUSED" if seen.paused is not None else "",
            "DELETES ARE HELD BACK" if seen.braked is not None else "",
        ]
        return cls(plain(data_dir), at, tuple(filter(None, facts)))

    @property
    def line(self) -> str:
        """All but the directory, in one line."""
        return " · ".join([f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%M:%S} UTC", *self.facts])


@dataclass(frozen=True, slots=True)
class Trouble:
    """A gap, a double cover, or a chunk that fails: where it is, and what there is to say of it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}  {self.what}"


class Troubles:
    """The troubles of one kind, each put in words once it is taken: of thousands few are shown."""

    def __init__(self, found: Sequence[T], words: Callable[[T], Trouble]) -> None:
        self._found, self._words = found, words

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, part: slice) -> list[Trouble]:
        return [*map(self._words, self._found[part])]


def resource(*names: str) -> str:
    """Read these style sheets or scripts, one after the other."""
    return "".join(files("fsdm.status.map").joinpath(name).read_text(encoding="utf-8") for name in names)


def short(chunk_id: str) -> str:
    """Shorten an id to what tells it from others."""
    return f"{chunk_id[:_ID_SHOWN]}…"


def span(start: int, end: int) -> str:
    """Write a half-open range of blocks as it is to be copied: without separators."""
    return f"[{start}, {end})"


def shares(parts: Sequence[int]) -> list[str]:
    """Write the parts of a whole in percent, which are 100 together. Only all is 100%, and only nothing is 0%."""
    whole = sum(parts)
    tenths = [part * 1000 // whole for part in parts]
    rests = sorted(range(len(parts)), key=lambda one: -(parts[one] * 1000 % whole))
    for one in rests[: 1000 - sum(tenths)]:
        tenths[one] += 1

    def text(part: int, tenth: int) -> str:
        if part in {0, whole}:
            return "100%" if part else "0%"
        return f"{'<' if part * 1000 < whole else ''}{min(max(tenth, 1), 999) / 10:.1f}%"

    return [*map(text, parts, tenths)]


def tiles(found: CoverageMap) -> list[tuple[str, str, bool]]:
    """Count all datasets together: (how many, of what, whether that is bad)."""
    coverages = found.coverages
    amounts = [coverage.amounts for coverage in coverages]
    gaps = sum(amount["missing"].segments for amount in amounts)
    doubles = sum(amount["doubled"].segments for amount in amounts)
    failing = sum(amount["failing"].chunks for amount in amounts)
    return [
        _tile(len(coverages), "dataset"),
        _tile(sum(len(coverage.chunks) for coverage in coverages), "chunk"),
        (readable(sum(coverage.size_bytes for coverage in coverages)), "on disk", False),
        _tile(gaps, "gap", bad=gaps > 0),
        _tile(doubles, "double cover", bad=doubles > 0),
        (f"{failing:,}", "failing", failing > 0),
    ]


def _tile(number: int, noun: str, *, bad: bool = False) -> tuple[str, str, bool]:
    many, what = count(number, noun).split(" ", 1)
    return many, what, bad


def summary(found: CoverageMap) -> str:
    """Say the same in one line."""
    return ", ".join(f"{many} {what}" for many, what, _ in tiles(found))


def ticks(coverage: Coverage) -> list[int]:
    """List blocks at even distances: the first, the last, and three between if they fit."""
    first, last = coverage.start, coverage.end - 1
    quarters = range(5) if last - first >= 40 and last < 10**12 else (0, 4)
    return [first + (last - first) * quarter // 4 for quarter in quarters]


def extent(coverage: Coverage) -> str:
    """Say from where to where a dataset is known, and how much there is of it."""
    chunks = count(len(coverage.chunks), "chunk")
    return f"blocks {span(coverage.start, coverage.end)}, {chunks}, {readable(coverage.size_bytes)} on disk"


def amount_rows(coverage: Coverage) -> list[tuple[Kind, str, str, str, str]]:
    """List (kind, chunks or ranges, blocks, share, bytes) of each kind that there is."""
    rows = []
    amounts = [coverage.amounts[kind] for kind in LEGEND]
    for kind, amount, share in zip(LEGEND, amounts, shares([one.blocks for one in amounts]), strict=True):
        if amount.segments or amount.chunks:
            is_range = kind in {"missing", "doubled"}
            many = count(amount.segments, TROUBLES[kind]) if is_range else count(amount.chunks, "chunk")
            size = readable(amount.size_bytes) if amount.chunks else ""
            rows.append((kind, many, count(amount.blocks, "block"), share, size))
    return rows


def troubles(coverage: Coverage) -> dict[Kind, Troubles]:
    """List all gaps, double covers and failing chunks, each kind in the order of blocks."""
    failing = [chunk for chunk in coverage.chunks.values() if KIND_OF[chunk.state] == "failing"]
    found: dict[Kind, Troubles] = {
        "missing": Troubles(coverage.of_kind("missing"), lambda s: Trouble(_span(s), count(s.blocks, "block"))),
        "doubled": Troubles(coverage.of_kind("doubled"), lambda s: Trouble(_span(s), _doubled(s))),
        "failing": Troubles(failing, lambda chunk: Trouble(_where(chunk), chunk_line(chunk))),
    }
    return {kind: same for kind, same in found.items() if len(same)}


def _span(segment: Segment) -> str:
    return span(segment.start, segment.end)


def _doubled(segment: Segment) -> str:
    more = segment.depth - len(segment.chunk_ids)
    ids = ", ".join(map(short, segment.chunk_ids)) + (f" and {more:,} more" if more else "")
    return f"{count(segment.blocks, 'block')}: {ids}"


def unplaced_title(found: CoverageMap) -> str:
    """Count the chunks that are not in any dataset's band, and say why."""
    return f"{count(len(found.unplaced), 'chunk')} on no band: what blocks they cover is not known"


def first(told: Sequence[object] | Troubles, listed: int) -> list[str]:
    """List so many of these, and how many more there are."""
    more = len(told) - listed
    return [*map(str, told[:listed]), *([f"… and {more:,} more"] if more > 0 else [])]


def details(coverage: Coverage, mark: Mark) -> str:
    """Describe one mark, in lines: its segment with its chunks, or the segments it joins."""
    if len(mark.segments) > 1:
        return "\n".join(_joined(mark.segments))
    (segment,) = mark.segments
    lines = [f"{segment.kind}: blocks {span(segment.start, segment.end)}, {count(segment.blocks, 'block')}"]
    chunks = map(coverage.chunks.__getitem__, segment.chunk_ids)
    lines += [f"{short(chunk.id)} {_where(chunk)} {_how(chunk)}" for chunk in chunks]
    more = segment.depth - len(segment.chunk_ids)
    return "\n".join([*lines, f"… and {count(more, 'more chunk')}"] if more else lines)


def _joined(segments: Sequence[Segment]) -> list[str]:
    kinds = sorted({segment.kind for segment in segments}, key=KINDS.index)
    where = span(segments[0].start, segments[-1].end)
    lines = [f"{', '.join(kinds)}: blocks {where}, {len(segments):,} pieces too narrow to draw"]
    for kind in kinds:
        same = [segment for segment in segments if segment.kind == kind]
        blocks = sum(segment.blocks for segment in same)
        lines.append(f"{kind}: {count(blocks, 'block')} in {count(len(same), 'piece')}")
        spans = [span(segment.start, segment.end) for segment in same] if kind in TROUBLES else []
        lines += [f"  {line}" for line in first(spans, _SEGMENTS_SHOWN)]
    return lines


def _where(chunk: ChunkStatus) -> str:
    return span(chunk.block_range.start, chunk.block_range.stop) if chunk.block_range else "-"


def chunk_line(chunk: ChunkStatus) -> str:
    """Name a chunk, and say how it stands."""
    return f"{short(chunk.id)} {_how(chunk)}"


def _how(chunk: ChunkStatus) -> str:
    size, total, least = chunk.size_bytes, chunk.total_bytes, chunk.least_bytes
    far = "" if total is None and not least else readable(size) if total == size else how_far(size, total, least)
    error = plain(chunk.error or "")
    more = "…" * (len(error) > _ERROR_SHOWN)
    state = "given up" if chunk.given_up else f"{chunk.state}{', cached' * chunk.cached}"
    return f"{state}{f', {far}' if far else ''}" + (f": {error[:_ERROR_SHOWN]}{more}" if error else "")
