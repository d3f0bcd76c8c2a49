"""The pages of documentation, taken apart: sections, fenced blocks, and the `fsdm …` commands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import fsdm

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = Path(fsdm.__file__).parent / "docs"
PAGES: Final = {path.name: path for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]}


@dataclass(frozen=True)
class Block:
    """A fenced block: `language` says how it is run, `how` what else the info string says of it."""

    language: str
    how: tuple[str, ...]
    text: str

    def says(self, key: str) -> str | None:
        """The value of `key=value` in the info string."""
        return next((word.partition("=")[2] for word in self.how if word.startswith(f"{key}=")), None)


@dataclass
class Section:
    """What stands below one heading, up to the next one of its level or above."""

    title: str
    level: int
    text: str = ""
    blocks: list[Block] = field(default_factory=list)

    def of(self, *languages: str) -> list[Block]:
        """Its blocks in these languages."""
        return [block for block in self.blocks if block.language in languages]


def sections(page: str) -> list[Section]:
    """A page's sections, in order; what stands below a heading of a lower level is in that one alone."""
    found = [Section("", 0)]
    inside: list[str] | None = None
    info = ""
    for line in PAGES[page].read_text(encoding="utf-8").splitlines():
        if inside is not None:
            if line.startswith("```"):
                language, *how = info.split()
                found[-1].blocks.append(Block(language, tuple(how), "".join(f"{one}\n" for one in inside)))
                inside = None
            else:
                inside.append(line)
        elif line.startswith("```"):
            inside, info = [], line[3:].strip() or "none"
        elif heading := re.fullmatch(r"(#+) (.*)", line):
            found.append(Section(heading[2], len(heading[1])))
        else:
            found[-1].text += f"{line}\n"
    assert inside is None, f"a block of {page} has no end"
    return found


def like(shown: str) -> re.Pattern[str]:
    """What may stand where a page shows this output: `…` is any text within a line."""
    return re.compile(".*?".join(re.escape(part) for part in shown.split("…")))
