"""The page in a real Chromium: drawn, zoomed, searched, by pointer and by keys; and that hostile names do nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm.model.layout import Place
from fsdm.monitoring.page import app
from fsdm.monitoring.page.documents import PARTS
from fsdm.monitoring.page.observer import Observer
from fsdm.status.coverage import KINDS
from fsdm.store.data_dir import open_data_dir
from tests.support import eventually
from tests.support.browser import CHROMIUM, Browser
from tests.support.chunks import a_want, an_id, put_failure, put_want
from tests.support.maps import EVIL
from tests.support.scene import ETHEREUM, SOLANA, Scene, put_ready, shown, some_of_everything

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: chromium)")

DRAWN = [kind for kind in KINDS if kind != "known"]  # what is only registered is on the map of `fsdm map`
MARKS = "[...document.querySelectorAll('.band i')].map((mark) => mark.classList[0])"
TIP = "(tip.hidden ? '' : tip.innerText)"
PANEL = "(panel.open ? panel.innerText : '')"
BOX = """(() => {
    const node = document.querySelector(%s);
    node.scrollIntoView({block: "center"});
    const {left, top, width, height} = node.getBoundingClientRect();
    return [left, top, width, height];
})()"""
HIDE = """Object.defineProperty(document, "hidden", {value: %s, configurable: true});
document.dispatchEvent(new Event("visibilitychange"))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


class Page:
    """A page that is open, and the directory that it shows."""

    def __init__(self, browser: Browser, scene: Scene, url: str, observer: Observer) -> None:
        self.browser, self.scene, self.url, self.observer = browser, scene, url, observer
        self.root = Path(scene.layout.root)
        browser.screen(1200, 900)
        browser.point(0, 0)
        browser.open(f"{url}/")

    def sees(self, expression: str, what: str = "") -> Any:
        """Wait until JavaScript says that it is so."""
        return eventually(lambda: self.browser.value(expression), what or expression)

    def text(self, selector: str) -> str:
        return str(self.browser.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def shows(self, selector: str, text: str) -> None:
        """Wait until a part of the page has this text in it."""
        eventually(lambda: text in self.text(selector), f"{selector} shows {text}")

    def box(self, selector: str) -> list[float]:
        """Scroll to a node; its left, top, width and height."""
        return list(self.browser.value(BOX % json.dumps(selector)))

    def at(self, selector: str) -> tuple[float, float]:
        left, top, width, height = self.box(selector)
        return left + width / 2, top + height / 2

    def click(self, selector: str) -> None:
        """Click on a node, wherever it has moved to by then."""
        self.browser.value(f"document.querySelector({json.dumps(selector)}).click()")

    def hovers(self, selector: str) -> str:
        """Point at a node; what the tip says then."""
        self.browser.point(*self.at(selector))
        return str(self.browser.value(TIP))

    def press_at(self, x: float, y: float, to: float | None = None) -> None:
        how = {"button": "left", "clickCount": 1}
        self.browser.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.browser.do("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **how)
        if to is not None:
            for step in (x + (to - x) / 2, to):
                self.browser.do("Input.dispatchMouseEvent", type="mouseMoved", x=step, y=y, button="left", buttons=1)
        self.browser.do("Input.dispatchMouseEvent", type="mouseReleased", x=x if to is None else to, y=y, **how)

    def search(self, text: str) -> None:
        self.browser.value("query.value = ''; query.focus()")
        self.browser.do("Input.insertText", text=text)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Opens the page of a scene; in the end it has complained of nothing, and asked no one else."""
    pages: list[Page] = []
    contexts = []

    def open_(scene: Scene) -> Page:
        context = shown(scene)
        contexts.append(context)
        pages.append(Page(browser, scene, *context.__enter__()))
        return pages[-1]

    yield open_
    complaints, requests = browser.complaints(), browser.requests()
    browser.open("about:blank")
    for context in contexts:
        context.__exit__(None, None, None)
    assert complaints == []
    assert [url for url in requests if not url.startswith((pages[-1].url, "data:"))] == []


@pytest.fixture
def page(opened: Any, tmp_path: Path) -> Page:
    page: Page = opened(some_of_everything(tmp_path / "data"))
    page.sees(f"new Set({MARKS}).size === {len(DRAWN)}", "all that is pending was read")
    return page


def of_no_chunk(tmp_path: Path) -> Scene:
    return Scene(open_data_dir(tmp_path / "data", durable=False, allow_unknown_fs=True))


def test_all_of_it_is_shown(page: Page) -> None:
    assert set(page.browser.value(MARKS)) == set(DRAWN)
    for name, number in (("here", 83), ("coming", 12), ("failing", 2), ("retiring", 1)):
        page.sees(f"document.querySelector('.tiles [data-key={name}] dd').textContent === '{number}'")
    for name, number in (("coming", 3), ("failing", 2), ("retiring", 1)):
        page.sees(f"document.querySelectorAll('#lists [data-key={name}] li').length === {number}")
    for said in ("9 wanted, waiting for their turn", "HTTP 404 Not Found", "not tried again by itself", "query-worker"):
        page.shows("#lists", said)
    assert "of the budget of 60.0 GB" in page.text("#facts")
    assert page.browser.value("document.querySelectorAll('figure').length") == 3


def test_a_change_is_shown_without_a_reload_and_nothing_else_is_made_anew(page: Page) -> None:
    page.browser.value("window.kept = document.querySelector('.band i'); 1")
    place = page.scene.here[-1]
    new = Place.of(ETHEREUM, range(16_999_000, 17_000_000), an_id())
    put_ready(page.scene.layout, new, 1000)
    page.sees("document.querySelector('.tiles dd').textContent === '84'")
    page.sees("document.querySelector('.axis span').textContent === '16,999,000'")
    assert page.browser.value("window.kept.isConnected")
    assert place.dataset_id == ETHEREUM
    want = put_want(page.root, a_want(dataset_id=SOLANA, block_range=(0, 10)))
    put_failure(page.root, want.id, kind="transfer", error="it breaks")
    page.shows("#lists", "it breaks")
    Path(page.scene.layout.want_marker(want.id)).unlink()
    Path(page.scene.layout.failed_of(want.id)).unlink()
    eventually(lambda: "it breaks" not in page.text("#lists"))


def test_bars_grow_with_what_comes(page: Page) -> None:
    share = "Number(document.querySelector('.meter i').style.getPropertyValue('--share'))"
    page.scene.come(3)
    first = page.sees(f"{share} > 5 && {share}")
    page.scene.come(3)
    page.sees(f"{share} > {first} + 5")
    page.sees("/[0-9] [kM]B\\/s, .* left/.test(document.querySelector('.row .more').textContent)")


def test_chunk_is_explained_in_the_words_of_the_command_and_kept_up_to_date(page: Page) -> None:
    page.click("#lists [data-key=retiring] .row")
    page.sees(f"{PANEL}.includes('it is held by pid')")
    told = page.browser.value(PANEL)
    assert page.browser.value("location.hash.slice(1)") in page.scene.retiring
    for said in ("asked", "it is to be deleted", "to do", "wait until they release it, or end them"):
        assert said in told
    page.browser.press("Escape")
    assert page.browser.value(PANEL) == ""
    page.click("#lists [data-key=failing] .row")
    page.sees(f"{PANEL}.includes('HTTP 503')")
    chunk_id = page.browser.value("location.hash.slice(1)")
    put_failure(page.root, chunk_id, kind="transfer", error="another error", first_at=0.0, last_at=0.0)
    page.sees(f"{PANEL}.includes('failed')")
    page.browser.press("Escape")


def test_address_of_a_chunk_opens_it(page: Page) -> None:
    page.browser.open("about:blank")
    page.browser.open(f"{page.url}/#{page.scene.here[5].chunk_id}")
    page.sees(f"{PANEL}.includes('it is available')")
    page.browser.press("Escape")


def test_hover_and_keys_tell_what_a_mark_is(page: Page) -> None:
    eventually(lambda: page.hovers(".band i.missing").startswith("missing: blocks ["))
    page.browser.point(0, 0)
    page.browser.value("document.querySelector('.band i').focus()")
    page.browser.press("ArrowRight")
    page.sees(f"{TIP}.startsWith('here: blocks [')")
    page.browser.press("End")
    page.sees(f"{TIP}.startsWith('failing: blocks [')")
    page.browser.press("Enter")
    page.sees(f"{PANEL}.includes('want')")
    page.browser.press("Escape")


def test_map_is_zoomed_by_drag_by_buttons_and_by_keys(page: Page) -> None:
    whole = page.text(".extent")
    left, top, width, height = page.box(".band")
    page.press_at(left + width * 0.25, top + height / 2, to=left + width * 0.5)
    page.shows(".extent", "shown: [17020")
    assert page.browser.value(PANEL) == "", "a drag is no click"
    assert not page.browser.value("document.querySelector('.part').classList.contains('whole')")
    page.click(".zoom button:nth-child(3)")
    zoomed = eventually(lambda: page.text(".extent") if page.text(".extent") != whole else "")
    page.click(".zoom button:nth-child(4)")
    eventually(lambda: page.text(".extent") not in {whole, zoomed})
    page.click(".zoom button:nth-child(5)")
    eventually(lambda: page.text(".extent") == whole)
    page.browser.value("document.querySelector('.band i.missing').focus()")
    page.browser.press("+")
    page.shows(".extent", "shown: [")
    assert "missing" in page.browser.value(MARKS), "it zooms to where the focus is"
    page.browser.press("0")
    eventually(lambda: page.text(".extent") == whole)


def test_search_finds_by_block_and_by_id_and_opens_by_keys(page: Page) -> None:
    place = page.scene.here[7]
    page.browser.value("document.activeElement.blur()")
    page.browser.press("/")
    assert page.browser.value("document.activeElement.id") == "query"
    page.search(f"{place.block_range.start:,}")
    page.shows("#hits", place.chunk_id[:12])
    page.browser.value("document.querySelector('#hits button').focus()")
    page.browser.press("Enter")
    page.sees(f"{PANEL}.includes({place.chunk_id!r})")
    page.browser.press("Escape")
    page.search("solana 290000001")
    page.shows("#hits", "available")
    assert page.browser.value("hits.children.length") == 1
    page.search("zzz")
    page.shows("#hits", "type a block, 4 or more digits of an id")
    page.browser.press("Escape")
    assert page.browser.value("hits.hidden")


def test_every_control_is_reached_by_tab_and_has_a_name(page: Page) -> None:
    nodes = page.browser.do("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "searchbox", "textbox", "img", "image", "link", "group"}
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if node.get("role", {}).get("value") in roles
        and not node.get("ignored")
        and not node.get("name", {}).get("value")
    ]
    assert [role for role in unnamed if role != "group"] == []
    reached = set()
    page.browser.value("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(30):
        page.browser.press("Tab")
        reached.add(page.browser.value("document.activeElement.tagName.toUpperCase()"))
        reached.add(page.browser.value("document.activeElement.parentElement.className"))
    assert {"INPUT", "SVG", "BUTTON", "I", "SUMMARY", "band", "zoom"} <= reached


@pytest.mark.parametrize("width", [320, 390, 768, 1200, 2400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_any_width_in_the_light_and_in_the_dark(page: Page, width: int, scheme: str) -> None:
    page.browser.screen(width, 900, prefers_color_scheme=scheme)
    page.sees(f"window.innerWidth === {width}")
    assert page.browser.value("document.documentElement.scrollWidth <= window.innerWidth")
    colour = page.browser.value("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(17, 21, 24)") == (scheme == "dark")
    small = "[...document.querySelectorAll('.row')].every((row) => row.scrollWidth <= row.clientWidth + 1)"
    assert page.browser.value(small)


def test_without_colours_each_kind_has_a_pattern_and_each_number_a_word(page: Page) -> None:
    page.browser.do("Emulation.setEmulatedVisionDeficiency", type="achromatopsia")
    drawn = page.browser.value(
        "[...document.querySelectorAll('.legend .swatch')].map((one) => { const style = getComputedStyle(one);"
        "return style.backgroundImage + style.boxShadow; })"
    )
    page.browser.do("Emulation.setEmulatedVisionDeficiency", type="none")
    assert len(set(drawn)) == len(KINDS)
    assert page.browser.value(
        "[...document.querySelectorAll('.meter b')].every((one) => /%|[?]/.test(one.textContent))"
    )


def test_hostile_names_do_nothing(opened: Any, tmp_path: Path) -> None:
    scene = of_no_chunk(tmp_path)
    root = Path(scene.layout.root)
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    for error in (markup, EVIL):
        want = put_want(root, a_want())
        put_failure(root, want.id, kind="transfer", error=error, hint=error, attempts=1)
    (root / "want" / an_id()).write_text(json.dumps({"dataset_id": markup, "block_range": {"start": markup, "end": 1}}))
    (root / "PAUSE").write_text(json.dumps({"by": markup, "reason": markup}))
    page = opened(scene)
    page.shows("#lists", "<img src=x onerror=alert(1)>")
    page.shows("#alerts", "<script>alert(2)</script>")
    page.click("#lists [data-key=failing] .row")
    page.sees(f"{PANEL}.includes('why')")
    page.browser.press("Escape")
    page.search(markup)
    page.sees("!hits.hidden")
    assert page.browser.value("document.querySelectorAll('img, script:not(:last-of-type), iframe, object').length") == 0
    assert page.browser.value("document.scripts.length") == 1


def test_markup_that_is_tried_all_the_same_is_refused_by_the_policy(page: Page) -> None:
    refused = page.browser.value(
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken'; } catch (e) { return e.name; } })()"
    )
    assert refused == "TypeError"
    assert page.browser.value("fetch('https://example.org/').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in json.dumps(told) for told in page.browser.complaints())
    page.browser.told.clear()


def test_thousands_of_chunks_are_hundreds_of_marks_and_a_gap_of_one_block_is_seen(opened: Any, tmp_path: Path) -> None:
    scene = of_no_chunk(tmp_path)
    for number in range(5000):
        blocks = range(1000 * number, 1000 * number + 1000 - (number == 2500))
        put_ready(scene.layout, Place.of(ETHEREUM, blocks, f"{number:064x}"), 10)
    page = opened(scene)
    page.sees(f"document.querySelectorAll('.band i').length > {PARTS // 4}")
    kinds = page.browser.value(MARKS)
    assert len(kinds) <= 2 * PARTS
    assert kinds.count("missing") == 1
    page.shows(".extent", "5,000 chunks, 50000 bytes")
    page.click(".band i.missing")
    page.shows(".extent", "shown: [")  # a joined mark is zoomed to
    gap = "missing: blocks [2500999, 2501000), 1 block"
    page.sees(f"[...document.querySelectorAll('.band i')].some((one) => one.ariaLabel === {gap!r})")


def test_maps_of_many_datasets_are_asked_for_as_they_are_seen(opened: Any, tmp_path: Path) -> None:
    scene = of_no_chunk(tmp_path)
    for number in range(60):
        put_ready(scene.layout, Place.of(f"{number:064x}", range(10), an_id()), 10)
    page = opened(scene)
    page.sees("document.getElementById('lists').nextElementSibling?.id === 'mapped'", "many maps stand below the lists")
    page.sees("document.querySelectorAll('.band').length === 60 && document.querySelector('.band i') !== null")
    drawn = "[...document.querySelectorAll('.band')].filter((band) => band.firstChild).length"
    assert page.browser.value(drawn) < 30
    page.browser.value("window.scrollTo(0, document.body.scrollHeight)")
    page.sees("document.querySelector('section:last-child .band i') !== null")


def test_page_that_is_left_takes_no_more_events_and_goes_on_when_it_is_seen_again(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BEAT_S", 0.05)
    page.browser.value(HIDE % "true")
    eventually(lambda: page.observer._watchers == 0)
    page.browser.value(HIDE % "false")
    eventually(lambda: page.observer._watchers == 1)
    page.sees("document.getElementById('live').className === 'on'")


def test_directory_that_goes_is_told_and_the_page_goes_on_when_it_is_back(page: Page) -> None:
    page.root.rename(page.root.with_name("away"))
    page.shows("#alerts", "is not a data directory")
    assert page.browser.value("document.body.classList.contains('lost')")
    page.root.with_name("away").rename(page.root)
    page.sees("!document.body.classList.contains('lost')")


def test_at_rest_nothing_is_sent_and_nothing_is_drawn(opened: Any, tmp_path: Path) -> None:
    scene = of_no_chunk(tmp_path)
    put_ready(scene.layout, Place.of(ETHEREUM, range(10), an_id()), 10)
    page = opened(scene)
    page.shows(".extent", "10 bytes")
    page.browser.value(
        "window.drawn = []; for (const name of ['lists', 'datasets']) { const before = draw[name];"
        "draw[name] = (part) => { drawn.push(name); before(part); }; } 1"
    )
    number = page.observer.board._number
    looked = page.observer._looked_at
    eventually(lambda: page.observer._looked_at > looked + 2, "some looks are taken")
    assert page.browser.value("window.drawn") == []
    parts = page.observer.board.wait(number, 0)[1]
    assert set(parts) <= {"history", "head"}  # the disk of this machine may fill up meanwhile


def test_chunk_that_is_opened_as_another_is_closed_stays(page: Page) -> None:
    first, second = page.scene.here[5].chunk_id, page.scene.here[6].chunk_id
    page.browser.value(f"openChunk({first!r}); panel.close(); openChunk({second!r})")
    page.sees(f"{PANEL}.includes({second!r}) && {PANEL}.includes('it is available')")
    assert page.browser.value("location.hash.slice(1)") == second
    page.browser.press("Escape")
