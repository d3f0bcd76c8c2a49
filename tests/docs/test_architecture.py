"""The page on the architecture names what is there: modules, and the layers of the contract in their order."""

import re
import tomllib
from collections import Counter

import pytest

from tests.support.pages import PAGES, ROOT, sections

PAGE = {section.title: section for section in sections("architecture.md")}
MODULE = re.compile(r"`([a-z_]+(?:/[a-z_]+)*\.py)`")


@pytest.mark.parametrize("module", sorted(set(MODULE.findall(PAGES["architecture.md"].read_text(encoding="utf-8")))))
def test_module_of_the_page_is_there(module: str) -> None:
    assert (ROOT / "fsdm" / module).is_file()


def test_picture_shows_the_layers_of_the_contract_in_their_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    [picture] = [block.text for block in PAGE["The layers"].blocks]
    shown = [line.split()[0].removesuffix("/").removesuffix(".py") for line in picture.splitlines()]
    assert shown == layers


def test_way_of_a_want_enters_no_module_twice_until_ready() -> None:
    until_ready, _, rest = PAGE["The way of a want"].text.partition("The outcome goes to")
    assert rest
    entered = Counter(MODULE.findall(until_ready))
    assert {module for module, times in entered.items() if times > 1} == set()
    assert len(entered) >= 20
