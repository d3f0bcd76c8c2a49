"""Progress as lines of text, as one line, as a document.

Lines fit the width and the height, and what does not fit is counted. Nothing that others wrote is read as markup, moves
the cursor, or is written in characters that the terminal cannot show.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from fsdm.model.units import ago, count, lasting, moment, per_second, readable
from fsdm.status.terminal import plain, takes_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from fsdm.status.chunk_status import Failing
    from fsdm.status.progress import Progress, Retiring, Running, Survey

WIDE: Final = 72  # columns: from there on a bar has numbers beside it
BAR_MAX: Final = 40
TAG: Final = 9  # columns, for what a row is of

_Item = tuple[str, str]  # text and style


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters to draw with, besides letters."""

    done: str = "━"
    rest: str = "─"
    between: str = " · "
    cut: str = "…"
    at_least: str = "≥ "
    at_most: str = "≤"
    encoding: str = "utf-8"

    def fit(self, text: str) -> str:
        """Write text of others in characters that can be shown and move nothing."""
        text = plain(text)
        return text if self.encoding == "utf-8" else text.replace("…", "...").encode("ascii", "replace").decode()


ASCII: Final = Glyphs("#", ".", " | ", "...", ">= ", "<=", "ascii")


def glyphs_for(encoding: str | None, environ: Mapping[str, str] = os.environ) -> Glyphs:
    """Choose what the terminal shows: ASCII where it takes no more."""
    return Glyphs() if takes_utf8(encoding, environ) else ASCII


def one_line(progress: Progress, glyphs: Glyphs = ASCII) -> str:
    """Say it in one line, for a log; it begins with the time."""
    survey = progress.survey
    if survey is None:
        return ""
    said = "; ".join(", ".join(text for text, _ in items) for items in _head(progress, survey, glyphs) if items)
    return f"{moment(survey.at, survey.at)} {said}"


def document(progress: Progress) -> dict[str, Any]:
    """Say it as JSON; fields are only ever added."""
    survey = progress.survey
    if survey is None:
        return {}
    running = [asdict(one) | {"bytes_per_s": progress.rate_of(one.id)} for one in survey.running]
    return asdict(survey) | {
        "converged": survey.is_converged,
        "running": running,
        "bytes_per_s": progress.rate(),
        "eta_s": progress.eta_s(),
        "eta_is_at_least": progress.eta_s() is not None and survey.unknown > 0,
        "max_bytes": progress.max_bytes,
    }


@dataclass(slots=True)
class View:
    """Progress on a screen, as rich draws it: as wide and high as the screen is then."""

    progress: Progress
    glyphs: Glyphs = field(default_factory=Glyphs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from lines(self.progress, options.max_width, max(console.size.height - 1, 1), self.glyphs)


def lines(progress: Progress, width: int, height: int, glyphs: Glyphs) -> list[Text]:
    """Draw at most `height` lines, none of them wider than `width`."""
    survey = progress.survey
    if survey is None:
        return []
    drawn = [line for items in _head(progress, survey, glyphs) for line in _flow(items, width, glyphs)]
    # those that are not tried again come last
    soonest = sorted(survey.failing, key=lambda one: (one.next_attempt_at is None, one.next_attempt_at or 0.0, one.id))
    rows: dict[str, tuple[Sequence[Any], Callable[[Any], Text]]] = {
        "more downloads": (progress.by_activity(survey.running), lambda one: _bar(one, progress, width, glyphs)),
        "more are retiring": (survey.retiring, lambda one: _retiring(one, survey.at, glyphs)),
        "more have failed": (soonest, lambda one: _failing(one, survey.at, glyphs)),
        "more wait for room": (survey.waiting, lambda one: _row("waiting", one.id, one.error, "yellow", glyphs)),
    }
    given = allot({name: len(found) for name, (found, _) in rows.items()}, height - len(drawn))
    for name, (found, draw) in rows.items():
        shown = given[name] if given[name] == len(found) else max(given[name] - 1, 0)
        drawn += map(draw, found[:shown])
        if shown < given[name]:
            drawn.append(Text(f"{' ' * TAG}and {len(found) - shown} {name}", "dim"))
    return [_cut(line, width, glyphs) for line in drawn[:height]]


def allot(needs: Mapping[str, int], rows: int) -> dict[str, int]:
    """Share rows among the parts of a view: what each needs, or an even share."""
    given = dict.fromkeys(needs, 0)
    while hungry := [name for name in needs if given[name] < needs[name]][: max(rows, 0)]:
        for name in hungry:
            given[name] += 1
        rows -= len(hungry)
    return given


def _cut(line: Text, width: int, glyphs: Glyphs) -> Text:
    line.no_wrap, line.overflow = True, "crop"
    if line.cell_len > width:
        line.truncate(max(width - len(glyphs.cut), 0))
        line.append(glyphs.cut[:width])
    return line


def _flow(items: list[_Item], width: int, glyphs: Glyphs) -> list[Text]:
    flowed: list[Text] = []
    for text, style in items:
        if flowed and flowed[-1].cell_len + len(glyphs.between) + len(text) <= width:
            flowed[-1].append(glyphs.between, "dim").append(text, style)
        else:
            flowed.append(Text().append(text, style))
    return flowed


def _head(progress: Progress, survey: Survey, glyphs: Glyphs) -> tuple[list[_Item], list[_Item], list[_Item]]:
    return _counts(survey, glyphs), _pace(progress, survey, glyphs), _ground(progress, survey, glyphs)


def _counts(survey: Survey, glyphs: Glyphs) -> list[_Item]:
    more = glyphs.at_least * (survey.uncounted > 0)
    counts = (
        (survey.wanted, "wanted", "cyan"),
        (len(survey.running), "downloading", "bold cyan"),
        (len(survey.retiring), "retiring", "magenta"),
        (survey.deleting, "deleting", "magenta"),
        (survey.unready, "out of service", "yellow"),
        (len(survey.waiting), "waiting for room", "yellow"),
        (len(survey.failing) - survey.given_up, "failed", "bold red"),
        (survey.given_up, "given up", "bold red"),
        (survey.cached, "cached", "green"),
        (survey.known, "known", "dim"),
    )
    here = (f"{survey.here} here, {more}{readable(survey.here_bytes)}", "bold green")
    return [here, *((f"{count} {words}", style) for count, words, style in counts if count)]


def _pace(progress: Progress, survey: Survey, glyphs: Glyphs) -> list[_Item]:
    if survey.is_converged:
        return [("converged", "bold green")]
    if not (survey.running or survey.wanted):
        return []
    rate, eta_s = progress.rate(), progress.eta_s()
    more = glyphs.at_least * (survey.unknown > 0)
    left: list[_Item] = []
    if survey.left_bytes or not survey.unknown:
        left.append((f"{more}{readable(survey.left_bytes)} to come", ""))
    if survey.unknown:
        left.append((f"the size of {count(survey.unknown, 'chunk')} is not known yet", "dim"))
    if survey.paused:
        return left
    coming = "ETA unknown, nothing comes" if rate == 0 and survey.running else "ETA unknown"
    if eta_s is not None:
        coming = f"ETA {more}{lasting(eta_s)} ({moment(survey.at + eta_s, survey.at)})"
    return [
        (per_second(rate) if rate is not None else "rate not known yet", "bold"),
        *left,
        (coming, ""),
    ]


def _ground(progress: Progress, survey: Survey, glyphs: Glyphs) -> list[_Item]:
    items = [(f"{readable(survey.free_bytes)} free", "bold red" if not survey.free_bytes else "dim")]
    items += [("THE DISK IS READ-ONLY", "bold red")] * survey.read_only
    if progress.max_bytes is not None:
        taken = survey.here_bytes + sum(one.size_bytes for one in survey.running)
        more = glyphs.at_least * (survey.uncounted > 0)
        items.append((f"{more}{readable(taken)} of {readable(progress.max_bytes)} taken", "dim"))
    items += [("PAUSED", "bold yellow")] * survey.paused
    items += [("DELETES ARE HELD BACK", "bold yellow")] * survey.braked
    if survey.unlisted:
        items.append((f"MAY NOT LIST {', '.join(survey.unlisted)}", "bold red"))
    if survey.reconciler is not None:
        items.append((f"reconciler {glyphs.fit(survey.reconciler)}", "dim"))
    elif not progress.is_own:
        items.append(("NO PROCESS RECONCILES", "bold red"))
    return items


def _bar(one: Running, progress: Progress, width: int, glyphs: Glyphs) -> Text:
    total = one.total_bytes if one.total_bytes is not None else max(one.least_bytes, one.size_bytes)
    share: float | None = min(one.size_bytes / total, 1.0) if total else 1.0
    at_most, of = "", readable(total)
    if one.total_bytes is None:
        at_most, of = glyphs.at_most, f"{glyphs.at_least}{of}"
        if total == one.size_bytes:  # not even a part of the rest is known
            share, of = None, ""
    percent = f"{'?' if share is None else f'{at_most}{int(share * 100)}%':>5}"
    name, numbers = one.id[:8], ""
    if width >= WIDE:
        rate = progress.rate_of(one.id)
        of = f" of {of}" if of else ""
        pace = "" if rate is None else per_second(rate)
        name, numbers = one.id[:12], f"  {readable(one.size_bytes)}{of:<14} {pace:>12}"
    bar = min(max(width - len(name) - len(percent) - len(numbers) - 1, 0), BAR_MAX)
    done = int((share or 0.0) * bar)
    line = Text(f"{name} ", "cyan").append(glyphs.done * done, "bold cyan").append(glyphs.rest * (bar - done), "dim")
    return line.append(f"{percent}{numbers}")


def _row(tag: str, chunk_id: str, said: str, style: str, glyphs: Glyphs) -> Text:
    return Text(f"{tag:<{TAG}}", style).append(f"{chunk_id[:12]} ", "dim").append(glyphs.fit(said))


def _retiring(one: Retiring, now: float, glyphs: Glyphs) -> Text:
    size = "" if one.size_bytes is None else f"{readable(one.size_bytes)}, "
    said = f"{size}deleted {lasting(now - one.since)} ago"
    if one.holders is not None:
        names = [f"pid {holder.pid} {holder.command} ({holder.user})" for holder in one.holders.found]
        unseen = "no holder can be seen" if one.holders.unseen else "no process holds it"
        said += f", held by {', '.join(names)}" if names else f", {unseen}"
    return _row("retiring", one.id, said, "magenta", glyphs)


def _failing(one: Failing, now: float, glyphs: Glyphs) -> Text:
    tries, due, upcoming = f"{one.attempts} tries, " if one.attempts > 1 else "", one.next_attempt_at, ""
    if due is not None:
        upcoming = "to be tried again now: " if due <= now else f"next {ago(due, now)}: "
    return _row("given up" if one.given_up else "failed", one.id, f"{tries}{upcoming}{one.error}", "red", glyphs)
