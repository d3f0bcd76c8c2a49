"""The pictures in README, as a real Chromium shows the page of a scene: `python -m tests.support.pictures` draws them.

The scene is the one that the tests of the page look at, so the pictures show what these see.
"""

import argparse
import base64
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.support.browser import Browser
from tests.support.pages import ROOT
from tests.support.scene import ETHEREUM, an_hour, shown, some_of_everything
from tests.support.waiting import eventually

FOLDER: Final = ROOT / "fsdm" / "docs"
SIZES: Final = {"page-light.png": (1080, 900), "page-dark.png": (1080, 900), "page-chunk.png": (1100, 560)}
MAX_BYTES: Final = 150_000
LOOKS: Final = 8  # at the downloads, while they go on


def draw(folder: Path, data_dir: Path) -> None:
    """Draw all pictures into a folder, of a scene in `data_dir`, whose path they show."""
    scene = some_of_everything(data_dir)
    with (
        shown(scene) as (url, observer),
        tempfile.TemporaryDirectory() as profile,  # its path is short: Chromium has a socket there
        Browser(Path(profile)) as browser,
    ):
        an_hour(observer)
        browser.screen(*SIZES["page-light.png"])
        browser.open(f"{url}/")
        for _ in range(LOOKS):
            scene.come(0.5)
            before = observer._looked_at
            eventually(lambda before=before: observer._looked_at > before)

        def shot(name: str, scheme: str) -> None:
            browser.screen(*SIZES[name], prefers_color_scheme=scheme)
            browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            picture = browser.do("Page.captureScreenshot", format="png")["data"]
            (folder / name).write_bytes(base64.b64decode(picture))

        eventually(lambda: browser.value(f"document.querySelectorAll('[data-key=\"{ETHEREUM}\"] .band i').length > 50"))
        eventually(lambda: browser.value("document.getElementById('lists').innerText.includes('query-worker')"))
        shot("page-light.png", "light")
        shot("page-dark.png", "dark")
        browser.value(f"openChunk({scene.retiring[0]!r})")
        eventually(lambda: browser.value("panel.innerText.includes('it is held by pid')"))
        shot("page-chunk.png", "light")


def main() -> None:
    """Draw the pictures where README has them."""
    argparse.ArgumentParser(prog="python -m tests.support.pictures", description=__doc__).parse_args()
    with ExitStack() as stack:
        home = Path(tempfile.gettempdir(), "fsdm")  # what the pictures show
        home.mkdir()
        stack.callback(shutil.rmtree, home)
        draw(FOLDER, home / "data")


if __name__ == "__main__":
    main()
