"""What the map says, however it is drawn: plain text, safe to print, not yet escaped for markup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fsdm.model.units import count, readable
from fsdm.status.coverage import KIND_OF, KINDS
from fsdm.status.terminal import plain
from fsdm.store.leader_lock import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.status.band import Mark
    from fsdm.status.chunk_status import ChunkStatus, Status
    from fsdm.status.coverage import Atlas, Coverage, Kind, Segment

MEANINGS: Final[Mapping[Kind, str]] = {
    "here": "one available chunk covers it",
    "coming": "wanted: downloading, or about to",
    "failing": "wanted, and it fails",
    "retiring": "deleted: goes when its last ref goes",
    "doubled": "more than one available chunk covers it",
    "missing": "no chunk covers it",
}
LEGEND: Final[tuple[Kind, ...]] = ("here", "coming", "failing", "retiring", "doubled", "missing")

_ID_SHOWN: Final = 12
_ERROR_SHOWN: Final = 300
_SEGMENTS_SHOWN: Final = 3  # of each kind, where many are drawn as one


@dataclass(frozen=True, slots=True)
class Caption:
    """What the map is of: the directory, when it was looked at (seconds since the epoch), and what else to know."""

    data_dir: str
    at: float
    facts: tuple[str, ...]

    @classmethod
    def of(cls, data_dir: str, at: float, seen: Status) -> Caption:
        """The caption of a status that was read at `at`."""
        facts = [
            f"reconciler: {plain(in_words(seen.reconciler))}",
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
    """What somebody may want to look at: a gap, a double cover, or a chunk that fails; where, and what of it."""

    kind: Kind
    where: str
    what: str


def short(chunk_id: str) -> str:
    """An id as far as one needs it to tell it from others."""
    return f"{chunk_id[:_ID_SHOWN]}…"


def span(start: int, end: int) -> str:
    """A half-open range of blocks, as it is to be copied: without separators."""
    return f"[{start}, {end})"


def share(part: int, whole: int) -> str:
    """A part in percent. Only all is 100%, and only nothing is 0%."""
    if part in {0, whole}:
        return "100%" if part else "0%"
    percent = min(max(part * 1000 // whole, 1), 999)
    return f"{'<' if part * 1000 < whole else ''}{percent / 10:.1f}%"


def tiles(atlas: Atlas) -> list[tuple[str, str, bool]]:
    """(how many, of what, whether that is bad) of all datasets together."""
    tallies = [coverage.tallies for coverage in atlas.coverages]
    gaps = sum(tally["missing"].segments for tally in tallies)
    doubles = sum(tally["doubled"].segments for tally in tallies)
    failing = sum(tally["failing"].chunks for tally in tallies)
    chunks = sum(len(coverage.chunks) for coverage in atlas.coverages)
    return [
        _tile(len(atlas.coverages), "dataset"),
        _tile(chunks, "chunk"),
        (readable(sum(coverage.size_bytes for coverage in atlas.coverages)), "on disk", False),
        _tile(gaps, "gap", bad=gaps > 0),
        _tile(doubles, "double cover", bad=doubles > 0),
        (f"{failing:,}", "failing", failing > 0),
    ]


def _tile(number: int, noun: str, *, bad: bool = False) -> tuple[str, str, bool]:
    many, what = count(number, noun).split(" ", 1)
    return many, what, bad


def summary(atlas: Atlas) -> str:
    """The same in one line."""
    return ", ".join(f"{many} {what}" for many, what, _ in tiles(atlas))


def ticks(coverage: Coverage) -> list[int]:
    """Blocks at even distances under a band: the first, the last, and three between where there is room for them."""
    first, last = coverage.start, coverage.end - 1
    quarters = range(5) if last - first >= 40 and last < 10**12 else (0, 4)
    return [first + (last - first) * quarter // 4 for quarter in quarters]


def extent(coverage: Coverage) -> str:
    """From where to where a dataset is known, and how much there is of it."""
    chunks = count(len(coverage.chunks), "chunk")
    return f"blocks {span(coverage.start, coverage.end)}, {chunks}, {readable(coverage.size_bytes)} on disk"


def tally_rows(coverage: Coverage) -> list[tuple[Kind, str, str, str, str]]:
    """(kind, chunks or ranges, blocks, their share, bytes) of each kind that there is, in the legend's order."""
    rows = []
    whole = coverage.end - coverage.start
    for kind in LEGEND:
        tally = coverage.tallies[kind]
        if not tally.segments and not tally.chunks:
            continue
        noun = {"missing": "gap", "doubled": "double cover"}.get(kind)
        many = count(tally.segments, noun) if noun else count(tally.chunks, "chunk")
        size = readable(tally.size_bytes) if tally.chunks else ""
        rows.append((kind, many, count(tally.blocks, "block"), share(tally.blocks, whole), size))
    return rows


def troubles(coverage: Coverage) -> list[Trouble]:
    """All gaps, double covers and failing chunks, each kind in the order of blocks."""
    gaps = [Trouble(s.kind, span(s.start, s.end), count(s.blocks, "block")) for s in coverage.of_kind("missing")]
    doubles = [
        Trouble(s.kind, span(s.start, s.end), f"{count(s.blocks, 'block')}: {_ids(s)}")
        for s in coverage.of_kind("doubled")
    ]
    failing = [
        Trouble("failing", _where(chunk), f"{short(chunk.id)} {_how(chunk)}")
        for chunk in coverage.chunks.values()
        if KIND_OF[chunk.state] == "failing"
    ]
    return gaps + doubles + failing


def unplaced_line(chunk: ChunkStatus) -> str:
    """A chunk of which it is not known where it belongs."""
    return f"{short(chunk.id)} {_how(chunk)}"


def first(told: list[str], listed: int) -> list[str]:
    """So many of these, and how many more there are."""
    more = len(told) - listed
    return [*told[:listed], f"… and {more:,} more"] if more > 0 else told


def details(coverage: Coverage, mark: Mark) -> str:
    """What is to be said of one mark, in lines: its segment and the chunks that make it so; or what it joins."""
    if len(mark.segments) == 1:
        segment = mark.segments[0]
        return "\n".join([_title(segment), *_chunk_lines(coverage, segment)])
    where = span(mark.segments[0].start, mark.segments[-1].end)
    kinds = ", ".join(kind for kind in KINDS if any(segment.kind == kind for segment in mark.segments))
    lines = [f"{kinds}: blocks {where}, {len(mark.segments):,} pieces too narrow to draw"]
    for kind in KINDS:
        same = [segment for segment in mark.segments if segment.kind == kind]
        if same:
            blocks = sum(segment.blocks for segment in same)
            lines.append(f"{kind}: {count(blocks, 'block')} in {count(len(same), 'piece')}")
            if kind in {"missing", "doubled", "failing"}:
                lines += [f"  {span(segment.start, segment.end)}" for segment in same[:_SEGMENTS_SHOWN]]
                lines += [f"  … and {len(same) - _SEGMENTS_SHOWN:,} more"] * (len(same) > _SEGMENTS_SHOWN)
    return "\n".join(lines)


def _title(segment: Segment) -> str:
    return f"{segment.kind}: blocks {span(segment.start, segment.end)}, {count(segment.blocks, 'block')}"


def _chunk_lines(coverage: Coverage, segment: Segment) -> list[str]:
    lines = []
    for chunk_id in segment.chunk_ids:
        chunk = coverage.chunks[chunk_id]
        lines.append(f"{short(chunk_id)} {_where(chunk)} {_how(chunk)}")
    more = segment.depth - len(segment.chunk_ids)
    return [*lines, f"… and {count(more, 'more chunk')}"] if more else lines


def _ids(segment: Segment) -> str:
    more = segment.depth - len(segment.chunk_ids)
    return ", ".join(map(short, segment.chunk_ids)) + (f" and {more:,} more" if more else "")


def _where(chunk: ChunkStatus) -> str:
    return span(chunk.block_range.start, chunk.block_range.stop) if chunk.block_range else "-"


def _how(chunk: ChunkStatus) -> str:
    """The state of a chunk, its bytes, and why it is so."""
    size = readable(chunk.size_bytes) if chunk.size_bytes or chunk.state == "available" else ""
    if chunk.total_bytes is not None and chunk.total_bytes != chunk.size_bytes:
        size = f"{readable(chunk.size_bytes)} of {readable(chunk.total_bytes)}"
    error = plain(chunk.error or "")
    if len(error) > _ERROR_SHOWN:
        error = f"{error[:_ERROR_SHOWN]}…"
    told = f"{chunk.state}, {size}" if size else str(chunk.state)
    return f"{told}: {error}" if error else told
