"""How progress looks: a survey as lines of text, as one line, as a document.

Every line fits the width, all lines fit the height, and what does not fit is counted. Nothing that others wrote (names,
errors, command lines) is read as markup, moves the cursor, or is written in characters that the terminal cannot show.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from fsdm.model.units import ago, lasting, moment, readable
from fsdm.status.progress import Progress, Survey, allot
from fsdm.status.terminal import plain, takes_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rich.console import Console, ConsoleOptions, RenderResult

    from fsdm.status.progress import Failing, Retiring, Running

WIDE: Final = 72  # columns: from there on a bar has numbers beside it
BAR_MAX: Final = 40
TAG: Final = 9  # columns, for what a row is of

_Item = tuple[str, str]  # text and style


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What is drawn with, besides letters."""

    done: str = "━"
    rest: str = "─"
    between: str = " · "
    cut: str = "…"
    at_least: str = "≥ "
    encoding: str = "utf-8"

    def fit(self, text: str) -> str:
        """Text of others, in characters that can be shown, moving nothing."""
        text = plain(text)
        return text if self.encoding == "utf-8" else text.replace("…", "...").encode("ascii", "replace").decode()


ASCII: Final = Glyphs("#", ".", " | ", "...", ">= ", "ascii")


def glyphs_for(encoding: str | None, environ: Mapping[str, str] = os.environ) -> Glyphs:
    """What the terminal shows: ASCII where it takes no more."""
    return Glyphs() if takes_utf8(encoding, environ) else ASCII


@dataclass(slots=True)
class Sight:
    """What is shown: the last survey, and what came before it. `max_bytes`: the budget, where it is known. `is_own`: it
    is the reconciler that shows it, and need not say so before it has LOCK and after."""

    max_bytes: int | None = None
    is_own: bool = False
    survey: Survey | None = None
    progress: Progress = field(default_factory=Progress)

    def take(self, survey: Survey, now: float) -> None:
        """One more survey. `now`: in seconds, of a clock that is not set."""
        self.survey = survey
        self.progress.take(survey, now)


# ------------------------------------------------------------------------------------------------- one line, a document


def one_line(sight: Sight, glyphs: Glyphs = ASCII) -> str:
    """All of it in a line, for a log: what it begins with is the time."""
    survey = sight.survey
    if survey is None:
        return ""
    parts = (_counts(survey, glyphs), _pace(sight, survey, glyphs), _ground(sight, survey, glyphs))
    said = "; ".join(", ".join(text for text, _ in items) for items in parts if items)
    return f"{moment(survey.at, survey.at)} {said}"


def document(sight: Sight) -> dict[str, Any]:
    """All of it as JSON; fields are only ever added."""
    survey = sight.survey
    if survey is None:
        return {}
    eta = sight.progress.eta(survey)
    running = [asdict(one) | {"bytes_per_s": sight.progress.rate_of(one.id)} for one in survey.running]
    return asdict(survey) | {
        "converged": survey.is_converged,
        "running": running,
        "bytes_per_s": sight.progress.rate(),
        "eta_s": eta.seconds,
        "eta_is_at_least": eta.at_least,
        "max_bytes": sight.max_bytes,
    }


# ---------------------------------------------------------------------------------------------------------- on a screen


@dataclass(slots=True)
class View:
    """The same on a screen, as rich draws it: as wide and as high as the screen is at that moment."""

    sight: Sight
    glyphs: Glyphs = field(default_factory=Glyphs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from lines(self.sight, options.max_width, max(console.size.height - 1, 1), self.glyphs)


def lines(sight: Sight, width: int, height: int, glyphs: Glyphs) -> list[Text]:
    """At most `height` lines, none of them wider than `width`."""
    survey = sight.survey
    if survey is None:
        return []
    head = [
        line
        for items in (_counts(survey, glyphs), _pace(sight, survey, glyphs), _ground(sight, survey, glyphs))
        for line in _flow(items, width, glyphs)
    ]
    rows: dict[str, tuple[int, Callable[[int], Iterable[Text]]]] = {
        "more downloads": (
            len(survey.running),
            lambda n: (_bar(one, sight, width, glyphs) for one in sight.progress.by_activity(survey.running)[:n]),
        ),
        "more are retiring": (
            len(survey.retiring),
            lambda n: (_retiring(one, survey.at, glyphs) for one in survey.retiring[:n]),
        ),
        "more have failed": (
            len(survey.failing),
            lambda n: (_failing(one, survey.at, glyphs) for one in _soonest(survey.failing)[:n]),
        ),
        "more wait for room": (
            len(survey.waiting),
            lambda n: (_row("waiting", one.id, one.error, "yellow", glyphs) for one in survey.waiting[:n]),
        ),
    }
    given = allot({name: count for name, (count, _) in rows.items()}, height - len(head))
    body: list[Text] = []
    for name, (count, draw) in rows.items():
        shown = given[name] if given[name] == count else given[name] - 1
        body += draw(max(shown, 0))
        if given[name] and shown < count:
            body.append(Text(f"{' ' * TAG}and {count - shown} {name}", "dim"))
    return [_cut(line, width, glyphs) for line in (head + body)[:height]]


def _cut(line: Text, width: int, glyphs: Glyphs) -> Text:
    line.no_wrap, line.overflow = True, "crop"
    if line.cell_len > width:
        line.truncate(max(width - len(glyphs.cut), 0))
        line.append(glyphs.cut[:width])
    return line


def _flow(items: list[_Item], width: int, glyphs: Glyphs) -> list[Text]:
    """Items one after the other, in as many lines as that takes."""
    flowed: list[Text] = []
    for text, style in items:
        if flowed and flowed[-1].cell_len + len(glyphs.between) + len(text) <= width:
            flowed[-1].append(glyphs.between, "dim").append(text, style)
        else:
            flowed.append(Text().append(text, style))
    return flowed


def _counts(survey: Survey, glyphs: Glyphs) -> list[_Item]:
    more = glyphs.at_least * (survey.uncounted > 0)
    items = [(f"{survey.here} here, {more}{readable(survey.here_bytes)}", "bold green")]
    for count, words, style in (
        (survey.wanted, "wanted", "cyan"),
        (len(survey.running), "downloading", "bold cyan"),
        (len(survey.retiring), "retiring", "magenta"),
        (survey.deleting, "deleting", "magenta"),
        (survey.unready, "out of service", "yellow"),
        (len(survey.waiting), "waiting for room", "yellow"),
        (len(survey.failing), "failed", "bold red"),
    ):
        if count:
            items.append((f"{count} {words}", style))
    return items


def _pace(sight: Sight, survey: Survey, glyphs: Glyphs) -> list[_Item]:
    if survey.is_converged:
        return [("converged", "bold green")]
    rate, eta = sight.progress.rate(), sight.progress.eta(survey)
    items = []
    if survey.running or survey.wanted:
        items.append((_rate(rate) if rate is not None else "rate not known yet", "bold"))
        more = glyphs.at_least * (survey.unknown > 0)
        items.append((f"{more}{readable(survey.left_bytes)} to come", ""))
        items.append((_eta_in_words(eta.seconds, rate, survey, at_least=glyphs.at_least * eta.at_least), ""))
    return items


def _eta_in_words(seconds: float | None, rate: float | None, survey: Survey, *, at_least: str) -> str:
    if seconds is not None:
        return f"ETA {at_least}{lasting(seconds)} ({moment(survey.at + seconds, survey.at)})"
    return "ETA unknown, nothing comes" if rate == 0 and survey.running else "ETA unknown"


def _ground(sight: Sight, survey: Survey, glyphs: Glyphs) -> list[_Item]:
    items = [(f"{readable(survey.free_bytes)} free", "bold red" if not survey.free_bytes else "dim")]
    if survey.read_only:
        items.append(("THE DISK IS READ-ONLY", "bold red"))
    if sight.max_bytes is not None:
        taken = survey.here_bytes + sum(one.size_bytes for one in survey.running)
        more = glyphs.at_least * (survey.uncounted > 0)
        items.append((f"{more}{readable(taken)} of {readable(sight.max_bytes)} taken", "dim"))
    if survey.paused:
        items.append(("PAUSED", "bold yellow"))
    if survey.braked:
        items.append(("DELETES ARE HELD BACK", "bold yellow"))
    if survey.unlisted:
        items.append((f"MAY NOT LIST {', '.join(survey.unlisted)}", "bold red"))
    if survey.reconciler is not None:
        items.append((f"reconciler {glyphs.fit(survey.reconciler)}", "dim"))
    elif not sight.is_own:
        items.append(("NOBODY RECONCILES", "bold red"))
    return items


# ----------------------------------------------------------------------------------------------------------------- rows


def _bar(one: Running, sight: Sight, width: int, glyphs: Glyphs) -> Text:
    total = one.total_bytes
    share = None if total is None else 1.0 if not total else min(one.size_bytes / total, 1.0)
    percent = "   ?" if share is None else f"{int(share * 100):>3}%"
    name, numbers = one.id[:8], ""
    if width >= WIDE:
        rate = sight.progress.rate_of(one.id)
        of = "" if total is None else f" of {readable(total)}"
        pace = "" if rate is None else _rate(rate)
        name, numbers = one.id[:12], f"  {readable(one.size_bytes)}{of:<14} {pace:>12}"
    bar = min(max(width - len(name) - len(percent) - len(numbers) - 2, 0), BAR_MAX)
    done = int((share or 0.0) * bar)
    line = Text(f"{name} ", "cyan")
    line.append(glyphs.done * done, "bold cyan").append(glyphs.rest * (bar - done), "dim")
    return line.append(f" {percent}{numbers}")


def _rate(bytes_per_s: float) -> str:
    return f"{readable(round(bytes_per_s))}/s" if bytes_per_s >= 100_000 else f"{bytes_per_s / 1000:.1f} kB/s"


def _row(tag: str, chunk_id: str, said: str, style: str, glyphs: Glyphs) -> Text:
    return Text(f"{tag:<{TAG}}", style).append(f"{chunk_id[:12]} ", "dim").append(glyphs.fit(said))


def _retiring(one: Retiring, now: float, glyphs: Glyphs) -> Text:
    size = "" if one.size_bytes is None else f"{readable(one.size_bytes)}, "
    said = f"{size}deleted {lasting(now - one.since)} ago"
    if one.holders is not None:
        names = [f"pid {holder.pid} {holder.command} ({holder.user})" for holder in one.holders.found]
        unseen = "nobody that can be seen holds it" if one.holders.unseen else "nobody holds it"
        said += f", held by {', '.join(names)}" if names else f", {unseen}"
    return _row("retiring", one.id, said, "magenta", glyphs)


def _failing(one: Failing, now: float, glyphs: Glyphs) -> Text:
    tries = f"{one.attempts} tries, " if one.attempts > 1 else ""
    upcoming = "" if one.next_attempt_at is None else f"next {ago(one.next_attempt_at, now)}: "
    if one.next_attempt_at is not None and one.next_attempt_at <= now:
        upcoming = "to be tried again now: "
    return _row("failed", one.id, f"{tries}{upcoming}{one.error}", "red", glyphs)


def _soonest(failing: Iterable[Failing]) -> list[Failing]:
    """The one that is tried next comes first; then those that are not tried again."""
    return sorted(failing, key=lambda one: (one.next_attempt_at is None, one.next_attempt_at or 0.0, one.id))
