"""The map as text, as SVG and as HTML, and `fsdm map` from outside; how a page looks, test_map_browser tells."""

import io
import json
import os
import re
import stat
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.model.layout import U64_MAX, Layout
from fsdm.status.chunk_status import ChunkStatus, DiskStatus, Status
from fsdm.status.coverage import KINDS, CoverageMap
from fsdm.status.map import drawing, page
from fsdm.status.map.text import LOOKS, Style, lines
from fsdm.status.map.words import LEGEND, MEANINGS, Caption, shares, summary, ticks, troubles
from fsdm.store.markers import place_known
from tests.support import fsdm, fsdm_json
from tests.support.chunks import a_want, an_id, entries, put_chunk, put_want, touch_delete
from tests.support.maps import ASKED_FOR, CAPTION, DATASET, EVIL, a_chunk, of_each_kind, thousands

SVG = "{http://www.w3.org/2000/svg}"


def told(found: CoverageMap, width: int = 65, listed: int = 5, **style: bool) -> str:
    return "\n".join(lines(found, Style(width, **style), listed))


class _Page(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def test_every_kind_has_a_glyph_a_colour_and_a_meaning_of_its_own() -> None:
    for table in (*({kind: look[n] for kind, look in LOOKS.items()} for n in range(3)), MEANINGS):
        assert set(table) == set(KINDS) == set(LEGEND)
        assert len(set(table.values())) == len(KINDS)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([0, 10], ["0%", "100%"]), ([5, 5], ["50.0%", "50.0%"]), ([1, U64_MAX - 1], ["<0.1%", "99.9%"]),
        ([1, 999], ["0.1%", "99.9%"]), ([1, 1000], ["<0.1%", "99.9%"]), ([1, 9999, 0], ["<0.1%", "99.9%", "0%"]),
    ],
)  # fmt: skip
def test_only_all_is_100_percent_and_only_nothing_is_0(parts: list[int], expected: list[str]) -> None:
    assert shares(parts) == expected


@given(st.lists(st.integers(0, U64_MAX), min_size=1, max_size=6).filter(any))
def test_shares_are_100_percent_together(parts: list[int]) -> None:
    written = shares(parts)
    tenths = [0 if "<" in one else round(10 * float(one.rstrip("%"))) for one in written]
    few = sum("<" in one for one in written)
    assert sum(tenths) == 1000 or (few and 1000 - few <= sum(tenths) <= 1000)


def test_a_summary_counts_all_datasets_together() -> None:
    found = CoverageMap.of([*of_each_kind().coverages[0].chunks.values(), a_chunk(0, 1, dataset_id="e" * 64)])
    assert summary(found) == "2 datasets, 8 chunks, 2000 bytes on disk, 1 gap, 1 double cover, 1 failing"


def test_ticks_stand_at_quarters_where_there_is_room_and_at_both_ends_in_any_case() -> None:
    quarters = [100, 200, 300, 400, 500]
    for start, end, expected in (100, 501, quarters), (0, U64_MAX, [0, U64_MAX - 1]), (7, 20, [7, 19]), (7, 8, [7, 7]):
        assert ticks(CoverageMap.of([a_chunk(start, end)]).coverages[0]) == expected


def test_a_failing_chunk_is_told_also_where_another_covers_its_blocks() -> None:
    found = CoverageMap.of([a_chunk(0, 10), a_chunk(0, 10, "failed", error="HTTP 500")])
    assert ["HTTP 500" in trouble.what for trouble in troubles(found.coverages[0])["failing"][:]] == [True]


def test_a_band_shows_every_kind_and_says_how_much_of_each_there_is() -> None:
    shown = told(of_each_kind()).splitlines()
    assert shown[:4] == [
        DATASET,
        "blocks [0, 61), 7 chunks, 2000 bytes on disk",
        "  ██████████▄▄▄▄▄▄▄▄▄▄!!!!!!!!!!░░░░░░░░░░╬╬╬╬╬╬╬╬╬╬··········█",
        "  0                                                          60",
    ]
    assert shown[4:10] == [
        "  █ here            4 chunks  11 blocks  18.0%  2000 bytes",
        "  ▄ coming           1 chunk  10 blocks  16.4%     0 bytes",
        "  ! failing          1 chunk  10 blocks  16.4%     0 bytes",
        "  ░ retiring         1 chunk  10 blocks  16.4%     0 bytes",
        "  ╬ doubled   1 double cover  10 blocks  16.4%",
        "  · missing            1 gap  10 blocks  16.4%",
    ]
    assert shown[10:] == [
        "    · [50, 60)  10 blocks",
        "    ╬ [40, 50)  10 blocks: 555555555555…, 666666666666…",
        "    ! [20, 30)  333333333333… failed: HTTP 404",
    ]


def test_a_gap_of_one_block_among_thousands_of_chunks_is_seen_and_listed_exactly() -> None:
    chunks = [a_chunk(1000 * n, 1000 * n + 1000) for n in range(3000)]
    chunks[1234] = a_chunk(1_234_000, 1_234_999)
    shown = told(CoverageMap.of(chunks), width=44).splitlines()
    assert shown[2] == "  " + "█" * 16 + "·" + "█" * 23
    assert "    · [1234999, 1235000)  1 block" in shown


def test_lists_end_after_the_first_ones_and_say_how_many_more_there_are() -> None:
    found = CoverageMap.of([a_chunk(2 * n, 2 * n + 1) for n in range(1501)])
    shown = told(found, listed=2).splitlines()
    assert shown[-3:] == ["    · [1, 2)  1 block", "    · [3, 4)  1 block", "    · … and 1,498 more"]
    assert told(found, listed=0).splitlines()[-1] == "    · … and 1,500 more"


def test_a_narrow_terminal_loses_columns_and_no_kinds() -> None:
    shown = told(of_each_kind(), width=30).splitlines()
    assert shown[2] == "  ████▄▄▄▄!!!!!░░░░╬╬╬╬·····"
    assert "  · missing            1 gap" in shown
    assert all(len(line) <= 30 for line in shown[2:10])
    assert told(of_each_kind(), width=1)


def test_ascii_is_all_that_is_written_where_no_more_can_be() -> None:
    shown = told(of_each_kind(error="café 🔥"), ascii=True)
    assert shown.isascii()
    assert "  ##########++++++++++!!!!!!!!!!----------==========..........#" in shown
    assert "333333333333... failed: caf\\xe9 \\U0001f525" in shown


def test_colour_changes_no_character() -> None:
    coloured = told(of_each_kind(), colour=True)
    assert "\x1b[97;41m··········\x1b[0m" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == told(of_each_kind())


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("encoding", "environ", "colour", "ascii_only"),
    [
        ("utf-8", {}, True, False),
        ("utf-8", {"NO_COLOR": "1"}, False, False),
        ("utf-8", {"NO_COLOR": ""}, True, False),
        ("utf-8", {"LC_ALL": "C"}, True, True),
        ("utf-8", {"LANG": "de_DE.UTF-8"}, True, False),
        ("latin-1", {}, True, True),
        ("ascii", {"NO_COLOR": "1"}, False, True),
    ],
)
def test_a_terminal_gets_what_it_can_show(
    monkeypatch: pytest.MonkeyPatch, encoding: str, environ: dict[str, str], colour: bool, ascii_only: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert Style.of(_Terminal(io.BytesIO(), encoding), environ, 80) == Style(80, colour, ascii_only)
    monkeypatch.setenv("TERM", "dumb")
    assert not Style.of(_Terminal(io.BytesIO(), encoding), environ, 80).colour


def test_what_is_no_terminal_gets_no_colour() -> None:
    assert Style.of(io.TextIOWrapper(io.BytesIO(), "utf-8"), {}, 80) == Style(80)


def test_a_chunk_of_no_known_blocks_is_told_beneath() -> None:
    lost = ChunkStatus("8" * 64, "failed", error="no JSON")
    assert told(CoverageMap.of([lost])).splitlines() == [
        "1 chunk on no band: what blocks they cover is not known",
        "  888888888888… failed: no JSON",
    ]
    assert told(CoverageMap.of([])) == ""


def test_errors_move_no_cursor_and_are_no_markup() -> None:
    lost = ChunkStatus("8" * 64, "failed", error=EVIL * 9)
    found = CoverageMap(of_each_kind(error=EVIL).coverages, (lost,))
    caption = Caption.of(EVIL, 0.0, _status(EVIL))
    text, html, svg = told(found), page.html(found, caption), drawing.svg(found, caption, 5)
    for shown in (text, html, svg):
        assert re.sub("\n", "", shown).isprintable()
        shown.encode()
        assert "\\x1b[31m" in shown
    elements = _Page(html).elements
    assert [tag for tag, _ in elements].count("script") == 1
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    root = ET.fromstring(svg)
    known = {"svg", "title", "desc", "style", "defs", "pattern", "rect", "path", "circle", "g", "text", "tspan"}
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == known


def _status(reconciler: str | None, **says: Any) -> Status:
    return Status({}, (), reconciler, DiskStatus(2 * 10**9, read_only=says.pop("read_only", False)), **says)


def test_a_caption_tells_what_keeps_things_as_they_are() -> None:
    stuck = Caption.of("data", 86400.0, _status("pid 7", read_only=True, paused={}, braked={}))
    assert stuck.line == (
        "1970-01-02 00:00:00 UTC · reconciler: pid 7 · 2000.0 MB free on the disk, WHICH IS READ-ONLY"
        " · DOWNLOADS ARE PAUSED · DELETES ARE HELD BACK"
    )
    assert Caption.of("data", 0.0, _status(None)).facts == ("reconciler: none", "2000.0 MB free on the disk")


def test_errors_are_not_shown_without_end() -> None:
    found = of_each_kind(error="x" * 10**6)
    assert len(told(found)) < 2000
    assert len(page.html(found, CAPTION)) < 40_000


def marks_of(html: str) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in _Page(html).elements if tag == "i"]


def test_a_page_has_a_mark_for_each_segment_with_its_details() -> None:
    marks = marks_of(page.html(of_each_kind(), CAPTION))
    assert [(mark["class"] or "").split()[0] for mark in marks] == [*ASKED_FOR, "here"]
    assert marks[1]["title"] == ("coming: blocks [10, 20), 10 blocks\n222222222222… [10, 20) downloading")
    assert marks[2]["title"] == "failing: blocks [20, 30), 10 blocks\n333333333333… [20, 30) failed: HTTP 404"
    assert marks[5]["title"] == "missing: blocks [50, 60), 10 blocks"
    assert [mark["tabindex"] for mark in marks] == ["0"] + ["-1"] * 6


def test_a_page_asks_for_nothing_and_lets_nothing_be_asked_for() -> None:
    html = page.html(of_each_kind(error="see https://example.org/x"), CAPTION)
    for _, attributes in _Page(html).elements:
        assert not {"src", "action", "srcset", "data"} & set(attributes)
        assert str(attributes.get("href", "data:")).startswith("data:")
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import", html)
    assert not re.search(r"(href|src)=|@import|url\((?!#)", drawing.svg(of_each_kind(), CAPTION, 5))


def test_a_page_of_thousands_of_chunks_is_small_and_lists_every_gap() -> None:
    html = page.html(thousands(), CAPTION)
    assert len(marks_of(html)) <= 2 * page.PARTS
    assert len(html) < 200_000
    shown = "".join(_Page(html).data)
    for n in range(99, 4999, 100):
        assert f"[{1000 * n + 999}, {1000 * n + 1000})" in shown


def test_a_page_ends_also_where_gaps_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LISTED", 10)
    html = page.html(thousands(), CAPTION)
    assert "… and 39 more: fsdm map --json tells all" in html
    assert html.count("<tr><td>") == 10


def test_a_mark_that_joins_many_says_what_matters_of_them() -> None:
    marks = marks_of(page.html(thousands(), CAPTION))
    first, *others = next(str(m["title"]) for m in marks if m["class"] == "missing over here-below").splitlines()
    assert re.fullmatch(r"missing, here: blocks \[\d+, \d+\), \d+ pieces too narrow to draw", first)
    assert "missing: 1 block in 1 piece" in others


def test_drawing_has_a_rectangle_for_each_segment_and_lists_troubles() -> None:
    root = ET.fromstring(drawing.svg(of_each_kind(), CAPTION, 5))
    groups = root.findall(f"{SVG}g")
    assert len(groups) == 7
    titles = [group.findtext(f"{SVG}title") for group in groups]
    assert "missing: blocks [50, 60), 10 blocks" in titles
    x = {
        group.findtext(f"{SVG}title", "").split(":")[0]: float(group.findall(f"{SVG}rect")[0].get("x", ""))
        for group in groups[1:]
    }
    assert x["missing"] - x["doubled"] == pytest.approx(drawing.BAND * 10 / 61, abs=0.02)
    assert "[50, 60)  10 blocks" in "".join(root.itertext())
    many = "".join(ET.fromstring(drawing.svg(thousands(), CAPTION, 3)).itertext())
    assert "… and 46 more" in many


def test_nothing_at_all_is_a_page_and_a_drawing_too() -> None:
    assert "none is wanted" in page.html(CoverageMap.of([]), CAPTION)
    assert "none is wanted" in "".join(ET.fromstring(drawing.svg(CoverageMap.of([]), CAPTION, 5)).itertext())


@pytest.fixture
def filled(layout: Layout, data_dir: Path) -> Path:
    """Two datasets, one of them with a gap, a chunk that retires, and one that is wanted."""
    put_chunk(layout, start=0, end=10)
    put_chunk(layout, start=11, end=20)
    touch_delete(data_dir, put_chunk(layout, start=20, end=25).chunk_id)
    put_want(data_dir, a_want(block_range=(25, 40)))
    put_want(data_dir, a_want(dataset_id="dd00" + "e" * 60, block_range=(5, 9)))
    return data_dir


def test_the_verb_draws_what_the_files_say(filled: Path) -> None:
    done = fsdm("map", "-d", filled, COLUMNS="44", PYTHONIOENCODING="utf-8", LC_ALL="C.UTF-8")
    assert done.returncode == 0
    assert "  ██████████·█████████░░░░░▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄" in done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert "2 datasets, 5 chunks," in done.stderr
    assert "reconciler: none" in done.stderr
    assert fsdm("map", "-d", filled, PYTHONIOENCODING="ascii").stdout.isascii()


def test_one_dataset_is_named_by_its_id_or_by_enough_of_it(filled: Path) -> None:
    other = "dd00" + "e" * 60
    for named in (other, "dd00", "dd00e"):
        assert [d["dataset_id"] for d in fsdm_json("map", "-d", filled, named)["datasets"]] == [other]


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ("e" * 64, 3, "nothing is known of a dataset"),
        ("dd01", 3, "no dataset begins with dd01"),
        ("dd0", 2, "4 to 64 lower-case hex digits"),
        ("DD00", 2, "4 to 64 lower-case hex digits"),
        ("../x", 2, "4 to 64 lower-case hex digits"),
        ("f" * 65, 2, "4 to 64 lower-case hex digits"),
    ],
)
def test_unknown_dataset_ends_with_3_and_no_id_with_2(filled: Path, given: str, code: int, says: str) -> None:
    done = fsdm("map", "-d", filled, given)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_beginning_that_several_datasets_share_ends_with_2_and_names_them(filled: Path) -> None:
    put_want(filled, a_want(dataset_id="dd00" + "f" * 60, block_range=(5, 9)))
    done = fsdm("map", "-d", filled, "dd00")
    assert done.returncode == 2
    assert "dd00" + "e" * 60 in done.stderr
    assert "dd00" + "f" * 60 in done.stderr


def test_json_tells_every_segment(filled: Path) -> None:
    document = fsdm_json("map", "-d", filled, "d" * 64)
    dataset = document["datasets"][0]
    expected = [("here", 0, 10), ("missing", 10, 11), ("here", 11, 20), ("retiring", 20, 25), ("coming", 25, 40)]
    assert [(s["kind"], s["start"], s["end"]) for s in dataset["segments"]] == expected
    assert (dataset["start"], dataset["end"]) == (0, 40)
    assert dataset["kinds"]["missing"] == {"segments": 1, "blocks": 1, "chunks": 0, "size_bytes": 0}
    assert document["unplaced"] == []


def test_files_are_written_whole_and_standard_output_stays_empty(filled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "map.html").write_text("the one before")
    done = fsdm("map", "-d", filled, "--html", out / "map.html", "--svg", out / "map.svg")
    assert (done.returncode, done.stdout) == (0, "")
    assert (out / "map.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert ET.parse(out / "map.svg").getroot().tag == f"{SVG}svg"
    assert sorted(os.listdir(out)) == ["map.html", "map.svg"]
    assert stat.S_IMODE((out / "map.svg").stat().st_mode) & 0o444


def test_a_link_to_a_file_stays_and_the_file_is_written(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("the one before")
    (tmp_path / "link.html").symlink_to("real.html")
    assert fsdm("map", "-d", filled, "--html", tmp_path / "link.html").returncode == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_dash_is_standard_output_for_one_of_them(filled: Path) -> None:
    assert fsdm("map", "-d", filled, "--html", "-", PYTHONIOENCODING="ascii").stdout.startswith("<!DOCTYPE html>")
    assert ET.fromstring(fsdm("map", "-d", filled, "--svg", "-").stdout).tag == f"{SVG}svg"
    for both in (["--html", "-", "--svg", "-"], ["--html", "-", "--json"]):
        assert fsdm("map", "-d", filled, *both).returncode == 2


def test_so_many_are_listed_as_one_asks_for(filled: Path) -> None:
    assert "[10, 11)" in fsdm("map", "-d", filled, "--list", "1", PYTHONIOENCODING="utf-8").stdout
    assert "[10, 11)" not in fsdm("map", "-d", filled, "--list", "0", PYTHONIOENCODING="utf-8").stdout
    assert fsdm("map", "-d", filled, "--list", "-1").returncode == 2


def test_json_goes_with_a_file(filled: Path, tmp_path: Path) -> None:
    done = fsdm("map", "-d", filled, "--json", "--svg", tmp_path / "map.svg")
    assert json.loads(done.stdout)["datasets"]
    assert (tmp_path / "map.svg").exists()


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = entries(tmp_path)
    for name in ("no/such/map.html", "directory", "pipe"):
        done = fsdm("map", "-d", filled, "--html", tmp_path / name)
        assert done.returncode == 2, name
        assert "Traceback" not in done.stderr
        assert str(tmp_path / name) in done.stderr
    assert entries(tmp_path) == before


def test_a_directory_that_is_missing_ends_with_6_and_an_empty_one_is_drawn(layout: Layout, data_dir: Path) -> None:
    assert fsdm("map", "-d", data_dir / "nowhere").returncode == 6
    done = fsdm("map", "-d", data_dir)
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 datasets, 0 chunks" in done.stderr
    assert fsdm("map", "-d", data_dir, an_id()).returncode == 3


def test_blocks_that_are_only_registered_are_no_gap_and_what_is_cached_or_given_up_is_told() -> None:
    found = CoverageMap.of([
        a_chunk(0, 10, cached=True, id="1" * 64),
        a_chunk(10, 20, "known", id="2" * 64),
        a_chunk(20, 30, "failed", given_up=True, error="HTTP 404", id="3" * 64),
    ])  # fmt: skip
    shown = told(found)
    assert "1 chunk  10 blocks  33.3%" in next(line for line in shown.splitlines() if "▁ known" in line)
    assert "missing" not in shown
    assert "333333333333… given up: HTTP 404" in shown
    titles = [mark["title"] for mark in marks_of(page.html(found, CAPTION))]
    assert titles[:2] == [
        "here: blocks [0, 10), 10 blocks\n111111111111… [0, 10) available, cached",
        "known: blocks [10, 20), 10 blocks\n222222222222… [10, 20) known",
    ]


def test_registered_chunks_are_on_the_map_of_a_directory_unless_they_are_left_out(layout: Layout) -> None:
    put_chunk(layout, start=0, end=10)
    place_known(layout, a_want(dataset_id="d" * 64, block_range=(10, 20)), exclusive=False)
    for arguments, kinds in (((), ["here", "known"]), (("--without-known",), ["here"])):
        (dataset,) = fsdm_json("map", "-d", layout.root, *arguments)["datasets"]
        assert [segment["kind"] for segment in dataset["segments"]] == kinds
