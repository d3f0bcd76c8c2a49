"""The page and the drawing in a real Chromium: what is seen, by pointer, by keys, in the light and in the dark."""

import base64
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fsdm.status.coverage import KINDS, CoverageMap
from fsdm.status.map.drawing import WIDTH, svg
from fsdm.status.map.page import PARTS, html
from tests.support.browser import CHROMIUM, Browser
from tests.support.maps import ASKED_FOR, CAPTION, EVIL, a_chunk, of_each_kind, thousands
from tests.support.pixels import row_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: chromium)")

BOXES = """[...document.querySelectorAll(".band > i")].map((mark) => {
    const box = mark.getBoundingClientRect(), band = mark.parentElement.getBoundingClientRect();
    return {kind: mark.classList[0], left: box.left - band.left, width: box.width, band: band.width};
})"""
BAND = "document.querySelector('.band')"
TIP = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Opens the map of an found; in the end no map may have complained, or asked for anything but itself."""
    urls = []

    def open_(found: CoverageMap, *, as_svg: bool = False, **media: str) -> Browser:
        path = tmp_path / ("map.svg" if as_svg else "map.html")
        path.write_text(svg(found, CAPTION, 5) if as_svg else html(found, CAPTION), encoding="utf-8")
        browser.screen(**{"width": 1200, "height": 900} | media)  # type: ignore[arg-type]
        browser.point(0, 0)
        browser.open(path.as_uri())
        urls.append(path.as_uri())
        return browser

    yield open_
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == urls[-1:]


def test_a_page_that_complains_or_asks_for_something_would_be_found(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script>console.log(1)</script><img src='no.png'><script>no_such_thing()</script>")
    browser.open(page.as_uri())
    assert browser.requests() == [page.as_uri(), (tmp_path / "no.png").as_uri()]
    assert len(browser.complaints()) == 3
    page.write_text(html(of_each_kind(), CAPTION).replace("<main>", "<main><img src='no.png'><script>x()</script>"))
    browser.open(page.as_uri())
    assert len(browser.complaints()) == 2  # its policy has refused both
    failed = [told["params"] for told in browser.told if told.get("method") == "Network.loadingFailed"]
    assert [params["blockedReason"] for params in failed] == ["csp"]


def test_each_segment_is_drawn_as_wide_as_it_is_and_where_it_is(opened: Any) -> None:
    boxes = opened(of_each_kind()).value(BOXES)
    assert [box["kind"] for box in boxes] == [*ASKED_FOR, "here"]
    for number, box in enumerate(boxes[:-1]):
        assert box["left"] == pytest.approx(box["band"] * 10 * number / 61, abs=0.1)
        assert box["width"] == pytest.approx(box["band"] * 10 / 61, abs=1)
    assert boxes[-1]["left"] + boxes[-1]["width"] == pytest.approx(boxes[-1]["band"], abs=1)
    assert boxes[0]["band"] > 900


@pytest.mark.parametrize("width", [1001, 1200])
def test_line_between_two_chunks_is_seen_wherever_it_falls_between_pixels(opened: Any, width: int) -> None:
    page = opened(CoverageMap.of([a_chunk(7 * n, 7 * n + 7) for n in range(23)]), width=width)
    box = page.value(
        f"(() => {{ const {{x, y, width}} = {BAND}.getBoundingClientRect(); return [x, y + 9, width]; }})()"
    )
    left, top, wide = map(round, box)
    png = base64.b64decode(page.do("Page.captureScreenshot", format="png")["data"])
    inside = row_of(png, top)[left + 2 : left + wide - 2]
    here = inside[0]
    assert sum(one != here and before == here for before, one in pairwise(inside)) == 22


@pytest.mark.parametrize("width", [360, 1200, 2500])
def test_a_gap_of_one_block_among_thousands_of_chunks_is_seen_at_any_width(opened: Any, width: int) -> None:
    browser = opened(thousands(), width=width)
    boxes = browser.value(BOXES)
    assert len(boxes) <= 2 * PARTS
    assert sum(box["kind"] == "missing" for box in boxes) == 49
    assert min(box["width"] for box in boxes) >= 2
    assert all(box["left"] >= 0 and box["left"] + box["width"] <= box["band"] + 0.6 for box in boxes)
    on_top = """[...document.querySelectorAll(".band > .missing")].filter((mark) => {
        const box = mark.getBoundingClientRect();
        return document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2) === mark;
    }).length"""
    assert browser.value(on_top) == 49
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")


def centre(browser: Browser, kind: str) -> tuple[float, float]:
    box = browser.value(
        f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])"
        f"(document.querySelector('.band > .{kind}').getBoundingClientRect())"
    )
    return box[0], box[1]


def test_details_come_where_the_pointer_is_and_go_with_it(opened: Any) -> None:
    browser = opened(of_each_kind())
    assert browser.value(TIP) == ""
    browser.point(*centre(browser, "failing"))
    expected = "failing: blocks [20, 30), 10 blocks\n333333333333… [20, 30) failed: HTTP 404"
    assert browser.value(TIP).splitlines() == expected.splitlines()
    browser.point(*centre(browser, "missing"))
    assert browser.value(TIP) == "missing: blocks [50, 60), 10 blocks"
    browser.point(5, 5)
    assert browser.value(TIP) == ""


def test_details_stay_within_the_window_at_every_mark(opened: Any) -> None:
    browser = opened(of_each_kind(error="long " * 60), width=360)
    inside = """(({left, right, top}) => left >= 0 && right <= window.innerWidth && top >= 0)
        (document.getElementById('tip').getBoundingClientRect())"""
    for kind in ASKED_FOR:
        browser.point(*centre(browser, kind))
        assert browser.value(TIP).startswith(kind)
        assert browser.value(inside), kind
        lines = browser.value("document.getElementById('tip').getBoundingClientRect().height") // 18
        assert lines <= (30 if kind == "failing" else 4), kind  # not squeezed against the edge


def test_a_thin_gap_is_found_by_its_flag_over_the_band(opened: Any) -> None:
    browser = opened(thousands())
    x, y = centre(browser, "missing")
    browser.point(x + 3, y - 20 - 7)
    assert "missing: 1 block in 1 piece" in browser.value(TIP)


def test_keys_go_along_a_band_which_is_one_stop(opened: Any) -> None:
    browser = opened(of_each_kind())
    browser.press("Tab")
    kinds = []
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home", "ArrowLeft"):
        browser.press(key)
        kinds.append((browser.value("document.activeElement.classList[0]"), browser.value(TIP).split(":")[0]))
    expected = ["coming", "failing", "here", "here", "missing", "here", "here"]
    assert kinds == [(kind, kind) for kind in expected]
    browser.press("Escape")
    assert browser.value(TIP) == ""
    browser.press("Tab")
    assert browser.value("document.activeElement.tagName") == "SUMMARY"


def test_whoever_cannot_see_is_told_of_every_mark_by_its_name(opened: Any) -> None:
    browser = opened(of_each_kind())
    nodes = browser.do("Accessibility.getFullAXTree")["nodes"]
    named = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") in {"img", "image"}]
    assert [name.split(":")[0] for name in named] == [*ASKED_FOR, "here"]
    bands = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "group" and "name" in node]
    assert any(name.startswith("Blocks of dataset dddddddddddd") for name in bands)


def test_without_scripts_the_browsers_own_tooltip_has_the_details(opened: Any) -> None:
    browser = opened(of_each_kind())
    assert browser.value("document.querySelectorAll('.band > [title]').length") == 0  # else both would be shown
    browser.do("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.do("Page.reload")
        opened(of_each_kind())
        assert browser.value("document.querySelectorAll('.band > [title]').length") == 7
    finally:
        browser.do("Emulation.setScriptExecutionDisabled", value=False)


COLOURS = """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
    ...[...document.querySelectorAll(".legend .swatch")].map((one) => {
        const {backgroundColor, backgroundImage, boxShadow} = getComputedStyle(one);
        return backgroundColor + backgroundImage + boxShadow;
    })]"""


def test_the_dark_differs_from_the_light_and_all_kinds_from_each_other_in_both(opened: Any) -> None:
    light = opened(of_each_kind(), prefers_color_scheme="light").value(COLOURS)
    dark = opened(of_each_kind(), prefers_color_scheme="dark").value(COLOURS)
    for one, other in zip(light, dark, strict=True):
        assert one != other
    assert len(set(light)) == len(set(dark)) == 2 + len(KINDS)


# WCAG 2.2, 1.4.3: 4.5 to 1 for text; 1.4.11: 3 to 1 for what is drawn
CONTRAST = """(() => {
    const root = getComputedStyle(document.documentElement), canvas = document.createElement("canvas").getContext("2d");
    const light = (name) => {
        canvas.fillStyle = root.getPropertyValue("--" + name).trim();
        const part = (at) => parseInt(canvas.fillStyle.slice(at, at + 2), 16) / 255;
        const line = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * line(part(1)) + 0.7152 * line(part(3)) + 0.0722 * line(part(5));
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    return Object.fromEntries(
        ["ink", "faint", "here", "coming", "failing", "retiring", "doubled", "missing", "known"].map(
            (name) => [name, Math.min(ratio(name, "paper"), ratio(name, "card"))]));
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_and_drawn_stands_out(opened: Any, scheme: str) -> None:
    ratios = opened(of_each_kind(), prefers_color_scheme=scheme).value(CONTRAST)
    for name, ratio in ratios.items():
        assert ratio >= (4.5 if name in {"ink", "faint", "missing"} else 3), name


def test_what_is_hostile_is_shown_and_does_nothing(opened: Any) -> None:
    browser = opened(of_each_kind(error=EVIL * 2))
    assert browser.value("document.scripts.length") == 1
    assert "<script>alert(1)</script>" in browser.value("document.body.innerText")
    browser.point(*centre(browser, "failing"))
    assert "<script>alert(1)</script>" in browser.value(TIP)
    assert browser.value("document.getElementById('tip').querySelectorAll('*').length") == 1


def test_the_drawing_shows_each_segment_in_the_light_and_in_the_dark(opened: Any) -> None:
    kinds = """[...document.querySelectorAll("g > rect")].map((one) => [
        one.classList[0], one.getBoundingClientRect().left, one.getBoundingClientRect().width])"""
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    browser = opened(of_each_kind(), as_svg=True, prefers_color_scheme="light")
    boxes = sorted(browser.value(kinds), key=lambda box: box[1])
    assert [kind for kind, _, _ in boxes] == [*ASKED_FOR, "here"]
    for _, _, width in boxes[:-1]:
        assert width == pytest.approx((WIDTH - 80) * 10 / 61, abs=1)
    light = browser.value(paper)
    assert opened(of_each_kind(), as_svg=True, prefers_color_scheme="dark").value(paper) != light


def test_the_drawing_of_thousands_of_chunks_keeps_every_text_within_it(opened: Any) -> None:
    browser = opened(of_each_kind(error="W" * 500), as_svg=True)
    widest = "Math.max(...[...document.querySelectorAll('text')].map((one) => one.getBBox().x + one.getBBox().width))"
    assert browser.value(widest) <= WIDTH
    browser = opened(thousands(), as_svg=True)
    assert browser.value(widest) <= WIDTH
    assert browser.value("document.querySelectorAll('g > rect.missing').length") == 49
