"""How progress looks: what fits, in which characters, and nothing that others wrote is taken for more than text."""

import io
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fsdm.status.chunk_status import Failing
from fsdm.status.progress import Progress, Retiring, Running, Survey
from fsdm.status.progress_view import ASCII, Glyphs, View, allot, document, glyphs_for, lines, one_line
from fsdm.store.holders import Holder, Holders
from tests.support.chunks import an_id

NOW = time.mktime((2026, 5, 17, 12, 0, 0, 0, 0, -1))
GB, MB = 10**9, 10**6
HOSTILE = "[bold red]boo[/] \x1b[2J\r\x07 \u202e 名前 \udcff :smile:"
DUCK = Holder(4711, "duckdb -c 'select 1'", "ann", NOW - 720, "shared")
EMPTY = Survey(at=NOW, reconciler="pid 42", free_bytes=300 * GB, read_only=False)
BUSY = replace(
    EMPTY,
    here=120, here_bytes=1200 * GB, wanted=14, deleting=1, unready=1, left_bytes=4_200 * MB, came_bytes=0,
    running=(
        Running("1" * 64, 120 * MB, 240 * MB), Running("2" * 64, 50 * MB), Running("3" * 64, 0, 0),
        Running("0" * 64, 50 * MB, None, 200 * MB),
    ),
    retiring=(
        Retiring("4" * 64, NOW - 180, 5 * MB, Holders((DUCK,))),
        Retiring("5" * 64, NOW - 60, None, Holders()),
        Retiring("6" * 64, NOW - 60, None, Holders((), ("unseen",))),
        Retiring("7" * 64, NOW - 60),
    ),
    failing=(
        Failing("8" * 64, "transfer", "http://host/a: HTTP 404", 5, NOW + 900),
        Failing("9" * 64, "want", HOSTILE),
        Failing("a" * 64, "transfer", "HTTP 503", 1, NOW - 1),
    ),
    waiting=(Failing("b" * 64, "room", "needs 2 GB, but 9 of 10 GB are taken"),),
)  # fmt: skip


def progress_of(survey: Survey, **kw: Any) -> Progress:
    """After three seconds in which 90 MB came, 60 of them of the first chunk."""
    progress = Progress(**kw)
    running = tuple(replace(one, size_bytes=max(one.size_bytes - 60 * MB, 0)) for one in survey.running[:1])
    progress.take(replace(survey, running=running + survey.running[1:]), 100.0)
    progress.take(replace(survey, came_bytes=survey.came_bytes + 90 * MB), 103.0)
    return progress


def text_of(progress: Progress, width: int = 120, height: int = 30) -> str:
    return "\n".join(line.plain for line in lines(progress, width, height, Glyphs()))


def shown(survey: Survey, width: int = 120, height: int = 30, **kw: Any) -> str:
    return text_of(progress_of(survey, **kw), width, height)


def test_everything_that_goes_on_is_shown() -> None:
    text = shown(BUSY, width=160)
    for words in (
        "120 here, 1200.0 GB · 14 wanted · 4 downloading · 4 retiring · 1 deleting · 1 out of service",
        "1 waiting for room · 3 failed",
        "30.0 MB/s · 4200.0 MB to come · ETA 2 min (12:02:20)",
        "300.0 GB free · reconciler pid 42",
        "111111111111 ━━━━━━━━━━━━━━━━━━━━────────────────────  50%  120.0 MB of 240.0 MB      20.0 MB/s",
        "222222222222 ────────────────────────────────────────    ?  50.0 MB",
        "000000000000 ━━━━━━━━━━────────────────────────────── ≤25%  50.0 MB of ≥ 200.0 MB",
        "333333333333 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100%",
        "retiring 444444444444 5.0 MB, deleted 3 min ago, held by pid 4711 duckdb -c 'select 1' (ann)",
        "retiring 555555555555 deleted 60 s ago, no process holds it",
        "retiring 666666666666 deleted 60 s ago, no holder can be seen",
        "retiring 777777777777 deleted 60 s ago\n",
        "failed   888888888888 5 tries, next 12:15 (in 15 min): http://host/a: HTTP 404",
        "failed   aaaaaaaaaaaa to be tried again now: HTTP 503",
        "waiting  bbbbbbbbbbbb needs 2 GB, but 9 of 10 GB are taken",
    ):
        assert words in text + "\n"


def test_what_is_not_known_is_not_made_up() -> None:
    progress = Progress()
    assert lines(progress, 80, 24, ASCII) == []
    assert one_line(progress) == ""
    assert document(progress) == {}
    progress.take(replace(BUSY, uncounted=3, unknown=2), 100.0)
    text = text_of(progress)
    assert "120 here, ≥ 1200.0 GB" in text
    assert "rate not known yet · ≥ 4200.0 MB to come · the size of 2 chunks is not known yet · ETA unknown" in text
    assert " to come" not in text_of(progress_of(replace(BUSY, unknown=17, left_bytes=0))), "nothing is known of it"
    assert "ETA ≥ " in shown(replace(BUSY, unknown=2))
    assert document(progress_of(replace(BUSY, unknown=2)))["eta_is_at_least"] is True


def test_paused_downloads_have_no_rate() -> None:
    paused = progress_of(replace(BUSY, paused=True, running=(), wanted=17))
    assert "4200.0 MB to come\n300.0 GB free" in text_of(paused)
    told = document(paused)
    assert (told["bytes_per_s"], told["eta_s"], told["eta_is_at_least"]) == (None, None, False)
    assert progress_of(replace(BUSY, paused=True)).rate_of("1" * 64) is None, "what runs is about to end"


def test_a_stall_is_told() -> None:
    progress = Progress()
    for at in (0.0, 11.0, 22.0):
        progress.take(BUSY, at)
    assert "0.0 kB/s · 4200.0 MB to come · ETA unknown, nothing comes" in text_of(progress)


NOTHING_STANDS_OUT = ["ETA", "RECONCILES", "READ-ONLY", "PAUSED", "HELD BACK", "MAY NOT LIST"]


@pytest.mark.parametrize(
    ("survey", "known", "said", "silent"),
    [
        (EMPTY, {}, "converged", NOTHING_STANDS_OUT),
        (EMPTY, {"is_own": True}, "reconciler pid 42", NOTHING_STANDS_OUT),
        (replace(EMPTY, reconciler=None), {}, "NO PROCESS RECONCILES", []),
        (replace(EMPTY, reconciler=None), {"is_own": True}, "300.0 GB free", NOTHING_STANDS_OUT),  # it has no LOCK yet
        (replace(EMPTY, read_only=True), {}, "THE DISK IS READ-ONLY", []),
        (replace(EMPTY, paused=True), {}, "PAUSED", []),
        (replace(EMPTY, braked=True), {}, "DELETES ARE HELD BACK", []),
        (replace(EMPTY, unlisted=("want", "failed")), {}, "MAY NOT LIST want, failed", []),
        (BUSY, {}, "ETA", ["converged", "1200.2 GB"]),
        (BUSY, {"max_bytes": 1300 * GB}, "1200.2 GB of 1300.0 GB taken", ["converged"]),
    ],
)
def test_what_concerns_all_chunks_stands_out(survey: Survey, known: Any, said: str, silent: list[str]) -> None:
    text = shown(survey, **known)
    assert said in text
    assert not [words for words in silent if words in text]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 40), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.booleans()
)
def test_every_line_fits_any_screen(
    width: int, height: int, running: int, retiring: int, failing: int, ascii_only: bool
) -> None:
    survey = replace(
        BUSY,
        running=tuple(Running(an_id(n), n * MB, 30 * MB) for n in range(running)),
        retiring=tuple(Retiring(an_id(n), NOW, 3, Holders((replace(DUCK, command=HOSTILE),))) for n in range(retiring)),
        failing=tuple(Failing(an_id(n), "transfer", HOSTILE, n, NOW + n) for n in range(failing)),
    )
    drawn = lines(progress_of(survey), width, height, ASCII if ascii_only else Glyphs())
    assert 1 <= len(drawn) <= height
    assert all(line.cell_len <= width for line in drawn)
    text = "".join(line.plain for line in drawn)
    assert text.isprintable()
    assert not ascii_only or text.isascii()


@pytest.mark.parametrize("height", [10, 14, 20, 80])
def test_what_does_not_fit_is_counted(height: int) -> None:
    survey = replace(BUSY, running=tuple(Running(an_id(n), n * MB, 90 * MB) for n in range(40)))
    text = shown(survey, height=height).splitlines()
    bars = sum("━" in line or "───" in line for line in text)
    more = next((int(line.split()[1]) for line in text if line.endswith("more downloads")), 0)
    assert bars + more == 40
    assert any(line.lstrip().startswith(("retiring", "and 4 more are retiring")) for line in text)


def test_the_most_active_download_comes_first() -> None:
    progress = Progress()
    for at, came in ((0.0, {"a": 0, "b": 0, "c": 0}), (2.0, {"a": 1, "b": 50, "c": 9})):
        progress.take(replace(EMPTY, running=tuple(Running(c * 64, n, 90) for c, n in came.items())), at)
    bars = [line.plain[0] for line in lines(progress, 80, 20, ASCII) if "%" in line.plain]
    assert bars == ["b", "c", "a"]


def test_a_narrow_screen_has_bars_without_numbers() -> None:
    text = shown(BUSY, width=40)
    assert "11111111 ━━━━━━━━━━━━━─────────────  50%" in text
    assert "MB of" not in text


def rendered(glyphs: Glyphs, **console: Any) -> str:
    out = io.StringIO()
    screen = Console(file=out, width=100, height=30, force_terminal=True, **console)
    screen.print(View(progress_of(BUSY), glyphs))
    return out.getvalue()


def test_colours_are_used_and_not_where_nobody_wants_them() -> None:
    assert "\x1b[1;32m" in rendered(Glyphs(), color_system="standard", no_color=False)
    without = rendered(Glyphs(), color_system="standard", no_color=True)
    assert "\x1b[1;32m" not in without
    assert "━" in without, "what is done differs from what is not, without a colour too"
    assert "─" in without


def test_nothing_that_others_wrote_is_markup_an_emoji_or_a_cursor_movement() -> None:
    text = rendered(Glyphs(), color_system=None)
    assert "[bold red]boo[/] \\x1b[2J\\r\\x07 \\u202e 名前 \\udcff :smile:" in text
    assert not {"\r", "\x07", "\u202e"} & set(text)


@pytest.mark.parametrize(
    ("encoding", "environ", "is_utf8"),
    [
        ("utf-8", {}, True),
        ("UTF8", {"LANG": "de_DE.UTF-8"}, True),
        ("utf-8", {"LC_ALL": "C.utf8", "LANG": "C"}, True),
        ("utf-8", {"LC_ALL": "", "LANG": "en_US.UTF-8"}, True),
        ("utf-8", {"LC_ALL": "C", "LANG": "en_US.UTF-8"}, False),
        ("utf-8", {"LANG": "POSIX"}, False),
        ("utf-8", {"LC_CTYPE": "en_US.ISO-8859-1"}, False),
        ("iso-8859-1", {}, False),
        (None, {}, False),
    ],
)
def test_a_terminal_without_utf_8_gets_ascii(encoding: str | None, environ: dict[str, str], is_utf8: bool) -> None:
    assert (glyphs_for(encoding, environ) == Glyphs()) is is_utf8


def test_a_line_for_a_log_says_it_all() -> None:
    line = one_line(progress_of(BUSY))
    assert line.startswith("12:00:00 120 here, 1200.0 GB, 14 wanted, 4 downloading, ")
    assert "; 30.0 MB/s, 4200.0 MB to come, ETA 2 min (12:02:20); 300.0 GB free, reconciler pid 42" in line
    assert "\n" not in line


def test_a_document_has_the_numbers_and_the_reasons() -> None:
    told = json.loads(json.dumps(document(progress_of(BUSY))))
    assert (told["here"], told["bytes_per_s"], told["eta_s"], told["eta_is_at_least"]) == (120, 30 * MB, 140.0, False)
    assert told["running"][0] == {
        "id": "1" * 64, "size_bytes": 120 * MB, "total_bytes": 240 * MB, "least_bytes": 0, "bytes_per_s": 20 * MB,
    }  # fmt: skip
    assert told["retiring"][0]["holders"]["found"][0]["pid"] == 4711
    assert told["failing"][0]["error"] == "http://host/a: HTTP 404"
    assert told["converged"] is False


@given(st.lists(st.integers(0, 50), max_size=5), st.integers(-3, 60))
def test_rows_are_given_to_all_that_need_some_and_none_are_wasted(needs: list[int], rows: int) -> None:
    wanted = {str(number): need for number, need in enumerate(needs)}
    given_rows = allot(wanted, rows)
    assert given_rows.keys() == wanted.keys()
    assert all(given_rows[name] <= wanted[name] for name in wanted)
    assert sum(given_rows.values()) == max(min(rows, sum(needs)), 0)
    if rows >= len([need for need in needs if need]):
        assert all(given_rows[name] > 0 for name in wanted if wanted[name])


def test_what_is_given_up_cached_and_known_is_told() -> None:
    failing = (Failing("8" * 64, "transfer", "HTTP 404", 5, given_up=True), Failing("9" * 64, "transfer", "HTTP 503"))
    survey = replace(EMPTY, failing=failing, known=1000, cached=7)
    told = one_line(progress_of(survey))
    assert "1 failed, 1 given up, 7 cached, 1000 known" in told
    drawn = [line.plain for line in lines(progress_of(survey), 120, 40, Glyphs())]
    assert any(line.startswith("given up 888888888888 5 tries, HTTP 404") for line in drawn)
