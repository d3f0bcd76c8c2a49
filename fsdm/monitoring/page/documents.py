"""The contents of the page, as documents of texts and shares: from surveys, statuses and coverage. Pure.

Each text is safe to show as text: no control character, nothing that turns the direction of writing. A list shows at
most SHOWN rows, and counts the others.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.units import ago, count, how_far, lasting, moment, per_second, readable
from fsdm.status.coverage import marks
from fsdm.status.map import words
from fsdm.status.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fsdm.status.chunk_status import ChunkStatus, Failing, Status
    from fsdm.status.coverage import Coverage, Mark
    from fsdm.status.explain_text import Explanation
    from fsdm.status.progress import Progress, Retiring, Running, Survey

SHOWN: Final = 100
LISTED: Final = 50  # gaps, and double covers, of a dataset
PARTS: Final = 400  # what is narrower than that is drawn with its neighbours: about 3 px of a screen

Document = dict[str, Any]
NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})  # of datasets, by id


def head(root: str, progress: Progress, survey: Survey, around: Status, told: Iterable[str] = ()) -> Document:
    """Say how it stands as a whole: in a sentence, in numbers, and what keeps it from going on."""
    return {
        "root": plain(root),
        "says": _sentence(progress, survey),
        "alerts": [*_alerts(progress, survey, around), *map(plain, told)],
        "tiles": _tiles(progress, survey),
        "facts": [*_facts(progress, survey), *_list_facts(around, survey.at)],
    }


def _sentence(progress: Progress, survey: Survey) -> str:
    if survey.is_converged:
        return "All that is wanted is here, and all that is deleted is gone."
    coming, rate, eta_s = survey.running or survey.wanted, progress.rate(), progress.eta_s()
    parts = []
    if coming and survey.paused:
        parts.append(f"{readable(survey.left_bytes)} to come, once downloads are resumed")
    elif coming:
        more = "at least " * (survey.unknown > 0)
        when = "how long it will take is not known"
        if eta_s is not None:
            when = f"done in {more}{lasting(eta_s)}, at {moment(survey.at + eta_s, survey.at)}"
        pace = "" if rate is None else f" at {per_second(rate)}"
        parts.append(f"{more}{readable(survey.left_bytes)} to come{pace}: {when}")
    if survey.failing:
        parts.append(f"{count(len(survey.failing), 'chunk')} {'fails' if len(survey.failing) == 1 else 'fail'}")
    if survey.retiring:
        parts.append(f"{count(len(survey.retiring), 'chunk')} to go once released")
    text = "; ".join(parts) or "Something is still to be done."
    return f"{text[0].upper()}{text[1:]}"


def _alerts(progress: Progress, survey: Survey, around: Status) -> Iterable[str]:
    if around.reconciler_trouble is not None:
        yield f"{around.reconciler_trouble[0].upper()}{plain(around.reconciler_trouble[1:])}."
    elif survey.reconciler is None and not progress.is_own:
        yield "No process reconciles: nothing is carried out until `fsdm run` does."
    if survey.read_only:
        yield "The disk is read-only: nothing can be downloaded or deleted."
    if around.paused is not None:
        by, reason = (str(around.paused.get(key) or "") for key in ("by", "reason"))
        why = f" by {by}" * bool(by) + f": {reason}" * bool(reason)
        yield f"Downloads are paused{plain(why)}. `fsdm resume` ends it."
    if around.braked is not None:
        held, of = around.braked.get("held_back"), around.braked.get("of")
        how = f", {held} of {of} chunks" if isinstance(held, int) and isinstance(of, int) else ""
        yield f"Deletes are held back{how}. `fsdm release` releases them, if they are meant."
    if around.followed is not None and around.followed.held_back:
        why = plain(around.followed.held_back)
        yield f"A newer list is held back: {why}. `fsdm release` releases it, if it is meant."
    if around.followed is not None and around.followed.error:
        yield f"The list that is followed cannot be applied: {plain(around.followed.error)}."
    if survey.unlisted:
        yield f"This user may not list {', '.join(survey.unlisted)}: what is in there is not shown."


def _tiles(progress: Progress, survey: Survey) -> list[Document]:
    coming, more = len(survey.running) + survey.wanted, "≥ " * (survey.uncounted > 0)
    rate = progress.rate()
    pace = "paused" if survey.paused and coming else "" if rate is None or not coming else per_second(rate)
    tiles = [
        _tile("here", survey.here, f"{more}{readable(survey.here_bytes)}"),
        _tile("coming", coming, pace or (f"{len(survey.running)} downloading" if coming else "")),
        _tile("failing", len(survey.failing)),
        _tile("retiring", len(survey.retiring) + survey.deleting),
    ]
    rare = (
        ("given up", survey.given_up),
        ("waiting for room", len(survey.waiting)),
        ("out of service", survey.unready),
        ("cached", survey.cached),
        ("known", survey.known),
    )
    return [*tiles, *(_tile(name, number) for name, number in rare if number)]


def _tile(name: str, number: int, more: str = "") -> Document:
    return {"name": name, "number": f"{number:,}", "more": more, "none": number == 0}


def _facts(progress: Progress, survey: Survey) -> Iterable[str]:
    if progress.max_bytes is not None:
        taken = survey.here_bytes + sum(one.size_bytes for one in survey.running)
        more = "at least " * (survey.uncounted > 0)
        yield f"{more}{readable(taken)} of the budget of {readable(progress.max_bytes)} taken"
    yield f"{readable(survey.free_bytes)} free on the disk"
    if survey.reconciler is not None:
        yield f"reconciler {plain(survey.reconciler)}"


def _list_facts(around: Status, now: float) -> Iterable[str]:
    if (followed := around.followed) is not None:
        name = "no list" if followed.applied is None else f"list {words.short(followed.applied)}"
        chunks = f" ({count(followed.chunks, 'chunk')})" if followed.applied is not None else ""
        looked = "" if followed.looked_at is None else f", the newest at {moment(followed.looked_at, now)}"
        yield f"{name}{chunks} of {plain(followed.applied_url or followed.url)} applied{looked}"


def lists(
    progress: Progress, survey: Survey, find: Callable[[str], ChunkStatus | None], names: Mapping[str, str] = NO_NAMES
) -> Document:
    """List what is coming, retiring, failing and waiting for room, what matters most first."""

    def rows(found: Sequence[Any], row: Callable[[Any], Document]) -> Document:
        shown = [{"id": one.id, "where": _where(find(one.id), names), **row(one)} for one in found[:SHOWN]]
        return {"rows": shown, "more": len(found) - len(shown), "count": len(found)}

    # those that are not tried again come last
    soonest = sorted(survey.failing, key=lambda one: (one.next_attempt_at is None, one.next_attempt_at or 0.0, one.id))
    waiting = sorted(survey.waiting, key=lambda one: one.id)
    return {
        "coming": rows(progress.by_activity(survey.running), lambda one: _coming(one, progress))
        | {"queued": survey.wanted},
        "failing": rows(soonest, lambda one: _failing(one, survey.at)),
        "waiting": rows(waiting, lambda one: {"says": plain(one.error), "more": ""}),
        "retiring": rows(survey.retiring, lambda one: _retiring(one, survey.at)),
    }


def _where(chunk: ChunkStatus | None, names: Mapping[str, str]) -> str:
    """Say which blocks a chunk is of."""
    if chunk is None or chunk.dataset_id is None or chunk.block_range is None:
        return "its blocks are not known"
    dataset = names.get(chunk.dataset_id) or words.short(chunk.dataset_id)
    return f"{words.span(chunk.block_range.start, chunk.block_range.stop)} of {dataset}"


def _coming(one: Running, progress: Progress) -> Document:
    total, rate = one.total_bytes, progress.rate_of(one.id)
    at_most = max(one.least_bytes, one.size_bytes) if total is None else total
    share = min(one.size_bytes / at_most, 1.0) if at_most else 1.0
    is_unknown = total is None and at_most == one.size_bytes  # not even a part of the rest is known
    left = f", {lasting((total - one.size_bytes) / rate)} left" if total is not None and rate else ""
    pace = "" if rate is None else f"{per_second(rate)}{left}"
    says = how_far(one.size_bytes, total, one.least_bytes)
    return {"share": None if is_unknown else round(share, 3), "says": says, "more": pace}


def _failing(one: Failing, now: float) -> Document:
    tries = f"tried {one.attempts} times, " if one.attempts > 1 else "tried once, " if one.attempts else ""
    due, again = one.next_attempt_at, "given up" if one.given_up else "not tried again by itself"
    if due is not None:
        again = f"next at {ago(due, now)}" if due > now else "due now"
    return {"says": plain(one.error) or "failed/ID cannot be read", "more": f"{tries}{again}"}


def _retiring(one: Retiring, now: float) -> Document:
    size = "" if one.size_bytes is None else f"{readable(one.size_bytes)}, "
    by = "its holders are being looked for"
    if one.holders is not None:
        named = [f"pid {holder.pid} {plain(holder.command)} ({plain(holder.user)})" for holder in one.holders.found]
        by = "no holder can be seen" if one.holders.unseen else "no process holds it"
        by = f"held by {', '.join(named)}" if named else by
    return {"says": by, "more": f"{size}deleted {lasting(now - one.since)} ago"}


def datasets(
    versions: Mapping[str, int],
    counts: Callable[[str], int],
    unplaced: Sequence[ChunkStatus],
    names: Mapping[str, str] = NO_NAMES,
) -> Document:
    """List the datasets, each with the version of its map; and the chunks that are on no map."""
    listed = [
        {"id": one, "name": names.get(one, ""), "version": version, "says": count(counts(one), "chunk")}
        for one, version in versions.items()
    ]
    chunks = [{"id": one.id, "says": words.chunk_line(one)} for one in unplaced[:SHOWN]]
    return {"datasets": listed, "unplaced": chunks, "more": len(unplaced) - len(chunks)}


def dataset_map(version: int, whole: Coverage, shown: Coverage, *, is_counted: bool) -> Document:
    """Draw one dataset: the marks of what is shown of it, the axis, and the amounts and troubles of all of it.

    Bytes are left out until all are counted, and of what is coming: they change all the time, and stand in the list.
    """
    troubles, extent = words.troubles(whole), words.extent(whole)
    rows = [
        (kind, [*others, "" if kind == "coming" else size if is_counted else "…"])
        for kind, *others, size in words.amount_rows(whole)
    ]
    return {
        "id": whole.dataset_id,
        "version": version,
        "start": str(whole.start),
        "end": str(whole.end),
        "from": str(shown.start),
        "to": str(shown.end),
        "says": extent if is_counted else f"{extent.rpartition(',')[0]}; sizes are being read",
        "window": [(shown.start - whole.start) / whole.blocks, shown.blocks / whole.blocks],
        "ticks": [f"{block:,}" for block in words.ticks(shown)],
        "marks": [_mark(shown, mark) for mark in marks(shown, PARTS)],
        "kinds": [{"kind": kind, "cells": cells} for kind, cells in rows],
        "troubles": [
            {"title": count(len(told), words.TROUBLES[kind]), "kind": kind, **_first(told)}
            for kind, told in troubles.items()
            if kind != "failing"  # these are in a list of their own
        ],
    }


def _first(told: words.Troubles) -> Document:
    return {"rows": [[one.where, one.what] for one in told[:LISTED]], "more": max(len(told) - LISTED, 0)}


def _mark(coverage: Coverage, mark: Mark) -> Document:
    """Draw a mark: where, what, in which words, and what to show of it when it is chosen."""
    segments, bulk = mark.segments, mark.bulk
    return {
        "x": round(100 * mark.left, 5),
        "w": round(100 * mark.width, 5),
        "kind": mark.kind,
        "below": bulk if bulk != mark.kind else "",
        "says": words.details(coverage, mark),
        "ids": segments[0].chunk_ids if len(segments) == 1 else [],
        "from": str(segments[0].start),
        "to": str(segments[-1].end),
    }


def explained(found: Explanation, chunk: ChunkStatus | None, names: Mapping[str, str] = NO_NAMES) -> Document:
    """Explain a chunk in the words of `fsdm explain`."""
    titles = {"asked": found.asked, "here": found.here, "why": found.why, "to do": found.todo}
    where = "" if chunk is None else _where(chunk, names)
    said = [{"title": title, "sentences": [*map(plain, sentences)]} for title, sentences in titles.items()]
    return {"id": found.id, "state": found.state, "where": where, "said": said}


def hit(chunk: ChunkStatus, names: Mapping[str, str] = NO_NAMES) -> Document:
    """Name one chunk that was searched for."""
    return {"id": chunk.id, "where": _where(chunk, names), "state": chunk.state}


def trouble(root: str, error: Exception) -> str:
    """Say that the data directory cannot be looked at."""
    return f"{plain(root)} cannot be looked at: {plain(str(error))}"
