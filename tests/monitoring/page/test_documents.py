"""The documents of the page: what they say, how much of it, and that no text moves anything."""

import json
import re
import time
from dataclasses import replace

import pytest

from fsdm.model.layout import U64_MAX
from fsdm.monitoring.page import documents
from fsdm.monitoring.page.window import window
from fsdm.status.chunk_status import DiskStatus, Failing, Status
from fsdm.status.coverage import CoverageMap
from fsdm.status.explain_text import Explanation
from fsdm.status.progress import Progress, Retiring, Running, Survey
from fsdm.store.followed import Followed
from fsdm.store.holders import Holder, Holders
from tests.support.chunks import an_id
from tests.support.maps import ASKED_FOR, EVIL, a_chunk, of_each_kind, thousands

NOW = time.time()
AROUND = Status({}, (), None, DiskStatus(10**9, False))
REST = Survey(at=NOW, reconciler="pid 7 on host", free_bytes=10**9, read_only=False)


def taken(*surveys: Survey, each_s: float = 10.0, **of: int) -> Progress:
    progress = Progress(**of)  # type: ignore[arg-type]
    for number, survey in enumerate(surveys):
        progress.take(survey, number * each_s)
    return progress


def head(survey: Survey, around: Status = AROUND, progress: Progress | None = None) -> documents.Document:
    return documents.head("data", progress or taken(survey), survey, around)


def test_rest_is_one_sentence_and_no_alert() -> None:
    found = head(replace(REST, here=3, here_bytes=3000))
    assert found["says"] == "All that is wanted is here, and all that is deleted is gone."
    assert found["alerts"] == []
    assert [(tile["name"], tile["number"], tile["none"]) for tile in found["tiles"]] == [
        ("here", "3", False),
        ("coming", "0", True),
        ("failing", "0", True),
        ("retiring", "0", True),
    ]


def test_what_comes_has_a_rate_and_an_end() -> None:
    first = replace(REST, running=(Running("a", 0, 300),), left_bytes=300)
    later = replace(first, running=(Running("a", 100, 300),), came_bytes=100, left_bytes=200)
    progress = taken(first, later)
    assert head(later, progress=progress)["says"].startswith("200 bytes to come at 0.0 kB/s: done in 20 s, at ")
    [row] = documents.lists(progress, later, lambda _: None)["coming"]["rows"]
    assert (row["share"], row["says"], row["more"]) == (0.333, "100 bytes of 300 bytes", "0.0 kB/s, 20 s left")
    assert row["where"] == "its blocks are not known"


def test_paused_shows_no_rate() -> None:
    first = replace(REST, wanted=1, running=(Running("a", 0, 300),), left_bytes=300)
    later = replace(first, came_bytes=100, paused=True)
    found = head(later, replace(AROUND, paused={"by": "me", "reason": "lunch"}), taken(first, later))
    assert "/s" not in json.dumps(found)
    assert found["alerts"] == ["Downloads are paused by me: lunch. `fsdm resume` ends it."]
    assert found["says"] == "300 bytes to come, once downloads are resumed"


def test_each_trouble_is_an_alert() -> None:
    troubled = replace(REST, reconciler=None, read_only=True, unlisted=("want", "failed"))
    alerts = head(troubled, replace(AROUND, braked={"held_back": "x"}))["alerts"]
    for words in ("No process reconciles", "read-only", "may not list want, failed", "Deletes are held back. "):
        assert any(words in line for line in alerts), words
    stuck = head(REST, replace(AROUND, reconciler_trouble="the reconciler is stopped"))["alerts"]
    assert stuck == ["The reconciler is stopped."]


def test_list_that_is_followed_is_told_and_what_keeps_the_newest_from_being_applied() -> None:
    followed = Followed("http://h/list", "a" * 64, 3, 1.0, looked_at=1.0)
    told = head(REST, replace(AROUND, followed=followed))
    assert told["facts"][-1].startswith("list aaaaaaaaaaaa… (3 chunks) of http://h/list applied, the newest at ")
    assert told["alerts"] == head(REST, AROUND)["alerts"]
    troubled = replace(followed, applied=None, error="HTTP 404\x1b", held_back="3 of 8 would go")
    told = head(REST, replace(AROUND, followed=troubled))
    assert "A newer list is held back: 3 of 8 would go. `fsdm release` releases it, if it is meant." in told["alerts"]
    assert any("cannot be applied: HTTP 404" in alert and "\x1b" not in alert for alert in told["alerts"])
    assert told["facts"][-1].startswith("no list of http://h/list applied")


def test_failing_is_told_with_why_and_when_the_soonest_first() -> None:
    failing = (
        Failing("c", "transfer", "HTTP 404", 2, None),
        Failing("a", "transfer", "HTTP 503", 1, NOW + 60),
        Failing("b", "transfer", "", 0, NOW - 5),
    )
    found = documents.lists(taken(REST), replace(REST, failing=failing), lambda _: a_chunk(5, 9))["failing"]
    assert [row["id"] for row in found["rows"]] == ["b", "a", "c"]
    assert [row["says"] for row in found["rows"]] == ["failed/ID cannot be read", "HTTP 503", "HTTP 404"]
    due, soon, never = [row["more"] for row in found["rows"]]
    assert (due, never) == ("due now", "tried 2 times, not tried again by itself")
    assert re.fullmatch(r"tried once, next at \d\d:\d\d:\d\d.* \(in 60 s\)", soon)
    assert found["rows"][0]["where"] == "[5, 9) of dddddddddddd…"


def test_retiring_is_told_with_who_holds_it() -> None:
    holder = Holder(12, "duckdb x.sql", "me", None, "shared")
    retiring = (
        Retiring("a", NOW - 30, 1000, Holders((holder,))),
        Retiring("b", NOW - 30, None, Holders()),
        Retiring("c", NOW - 30, None, Holders((), ("not seen",))),
        Retiring("d", NOW - 30),
    )
    rows = documents.lists(taken(REST), replace(REST, retiring=retiring), lambda _: None)["retiring"]["rows"]
    assert [row["says"] for row in rows] == [
        "held by pid 12 duckdb x.sql (me)",
        "no process holds it",
        "no holder can be seen",
        "its holders are being looked for",
    ]
    assert rows[0]["more"] == "1000 bytes, deleted 30 s ago"


@pytest.mark.parametrize(
    ("one", "share", "says"),
    [
        (Running("a" * 64, 100, None, 400), 0.25, "100 bytes of at least 400 bytes"),
        (Running("a" * 64, 100, None, 100), None, "100 bytes"),
        (Running("a" * 64, 0, 0), 1.0, "0 bytes of 0 bytes"),
    ],
)
def test_bar_shows_what_is_known_of_the_size(one: Running, share: float | None, says: str) -> None:
    [row] = documents.lists(taken(REST), replace(REST, running=(one,)), lambda _: None)["coming"]["rows"]
    assert (row["share"], row["says"]) == (share, says)


def test_lists_are_bounded_and_count_the_rest() -> None:
    many = tuple(Running(an_id(), 1, 2) for _ in range(1000))
    found = documents.lists(taken(REST), replace(REST, running=many, wanted=7), lambda _: None)["coming"]
    assert (len(found["rows"]), found["more"], found["count"], found["queued"]) == (documents.SHOWN, 900, 1000, 7)
    unplaced = [a_chunk(0, 1) for _ in range(1000)]
    listed = documents.datasets({}, lambda _: 0, unplaced)
    assert (len(listed["unplaced"]), listed["more"]) == (documents.SHOWN, 900)


def test_map_of_thousands_has_hundreds_of_marks_and_a_part_of_it_its_own() -> None:
    [whole] = thousands().coverages
    drawn = documents.dataset_map(3, whole, whole, is_counted=True)
    assert drawn["version"] == 3
    assert len(drawn["marks"]) <= 2 * documents.PARTS
    assert sum(mark["kind"] == "missing" for mark in drawn["marks"]) == 49
    assert len(json.dumps(drawn)) < 200_000
    shown = window(whole, 99_000, 101_000)
    part = documents.dataset_map(3, whole, shown, is_counted=True)
    assert [(mark["kind"], mark["from"], mark["to"]) for mark in part["marks"]] == [
        ("here", "99000", "99999"),
        ("missing", "99999", "100000"),
        ("here", "100000", "101000"),
    ]
    assert part["kinds"] == drawn["kinds"]


def test_map_of_each_kind_names_its_chunks_and_what_is_wrong() -> None:
    [whole] = of_each_kind().coverages
    drawn = documents.dataset_map(1, whole, whole, is_counted=True)
    assert [mark["kind"] for mark in drawn["marks"]] == [*ASKED_FOR, "here"]
    assert {row["kind"] for row in drawn["kinds"]} == set(ASKED_FOR)
    assert [(one["kind"], one["title"]) for one in drawn["troubles"]] == [
        ("missing", "1 gap"),
        ("doubled", "1 double cover"),
    ]
    assert drawn["marks"][0]["ids"] == ("1" * 64,)
    uncounted = documents.dataset_map(1, whole, whole, is_counted=False)
    assert "bytes" not in uncounted["says"]
    assert {row["cells"][-1] for row in uncounted["kinds"]} == {"…", ""}
    assert [row["cells"][-1] for row in drawn["kinds"] if row["kind"] in {"here", "coming"}] == ["2000 bytes", ""]


def test_blocks_are_texts_which_scripts_do_not_round() -> None:
    [whole] = CoverageMap.of([a_chunk(U64_MAX - 2, U64_MAX)]).coverages
    drawn = documents.dataset_map(1, whole, whole, is_counted=True)
    assert (drawn["start"], drawn["end"]) == (str(U64_MAX - 2), str(U64_MAX))


@pytest.mark.parametrize("evil", [EVIL, "\u202egnp.exe", "\x00\x1b[2J"])
def test_no_text_of_others_moves_a_cursor_or_turns_its_direction(evil: str) -> None:
    holder = Holder(1, evil, evil, None, "shared")
    survey = replace(
        REST,
        reconciler=evil,
        failing=(Failing("a", "transfer", evil, 1, None),),
        waiting=(Failing("b", "room", evil),),
        retiring=(Retiring("c", NOW, 1, Holders((holder,))),),
    )
    chunk = a_chunk(0, 1, "failed", error=evil)
    around = replace(AROUND, paused={"by": evil, "reason": evil}, reconciler_trouble=f"x{evil}")
    [coverage] = of_each_kind(error=evil).coverages
    said = [
        documents.head(evil, taken(survey), survey, around),
        documents.lists(taken(survey), survey, lambda _: chunk),
        documents.datasets({"d" * 64: 1}, lambda _: 1, [chunk]),
        documents.dataset_map(1, coverage, coverage, is_counted=True),
        documents.explained(Explanation("a", "failed", (evil,), (evil,), (evil,), (evil,)), chunk),
        documents.trouble(evil, OSError(evil)),
    ]

    def texts(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return [text for one in inner for text in texts(one)]

    found = texts(said)
    assert sum("script" in text or "gnp" in text or "2J" in text for text in found) >= 10
    assert [text for text in found if not all(line.isprintable() for line in text.split("\n"))] == []
