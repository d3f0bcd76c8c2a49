"""The pages of documentation, taken apart: sections, fenced blocks, and the `fsdm …` commands in them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import fsdm

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = Path(fsdm.__file__).parent / "docs"
PAGES: Final = {
    path.name: path for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md")), DOCS.parent / "PROTOCOL.md"]
}


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
    """The text below one heading, up to the next one of its level or above."""

    title: str
    level: int
    text: str = ""
    blocks: list[Block] = field(default_factory=list)

    def of(self, *languages: str) -> list[Block]:
        return [block for block in self.blocks if block.language in languages]


def sections(page: str) -> list[Section]:
    """A page's sections, in order; what stands below a heading of a lower level is in that one alone."""
    return parsed(PAGES[page].read_text(encoding="utf-8"))


def parsed(text: str) -> list[Section]:
    found = [Section("", 0)]
    inside: list[str] | None = None
    info = ""
    for line in text.splitlines():
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
    assert inside is None, f"a block of {found[-1].title} has no end"
    return found


def like(shown: str) -> re.Pattern[str]:
    """Match output as a page shows it: `…` is any text in a line, or any lines."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "…" else ".*?".join(re.escape(part) for part in line.split("…"))
        for line in shown.splitlines(keepends=True)
    ]
    return re.compile("".join(lines))


def commands(page: list[Section]) -> list[list[str]]:
    """Find the `fsdm …` commands of a page, each as its words, in code, lines and blocks."""
    lines = []
    for section in page:
        lines += re.findall(r"`(fsdm [^`]+)`", section.text)
        lines += [line for line in section.text.splitlines() if line.startswith("    ")]
        lines += [line for block in section.of("sh", "console") for line in block.text.splitlines()]
    found = [
        command
        for line in lines
        for command in re.findall(r"(?:^\s*|[(|&;] *|(?:exec|xargs|until|if) )(fsdm [^#|&;)<>]+)", line)
    ]
    return [re.split(r"\s--\s", command)[0].replace("'", "").split() for command in found]


def transcript(blocks: list[Block]) -> list[tuple[str, str]]:
    """Take console blocks apart: each command (`$`, `>`) with the output that is shown."""
    found: list[tuple[str, str]] = []
    for line in "".join(block.text for block in blocks).splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (found[-1][0] + line[2:], "")
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def played(steps: list[tuple[str, str]]) -> str:
    """A script that runs these commands in one shell; after each, `\x1e` ends what it has printed."""
    return "set -m\nexec 2>&1\n" + "".join(f"{command}printf '\\x1e'\n" for command, _ in steps)
