"""fleet.md: its round is played as it stands there, its documents can be taken, and its figures are the defaults."""

import json
import re
from pathlib import Path

import pytest

from fsdm.cli.main import build_parser
from fsdm.fleet.documents import Pointer, PublishedList, WorkerDocument
from fsdm.fleet.metrics import METRICS
from fsdm.fleet.placing import Bounds
from fsdm.fleet.report import Report
from fsdm.fleet.shelf import KEPT_S
from tests.support import ran_by_shell
from tests.support.chunks import a_want, an_id
from tests.support.pages import PAGES, like, played, sections, transcript

PAGE = sections("fleet.md")
TEXT = PAGES["fleet.md"].read_text(encoding="utf-8")
BLOCKS = {block.language: block for section in PAGE for block in section.blocks}


def test_round_of_the_page_prints_what_is_shown(tmp_path: Path) -> None:
    wants = [
        a_want(id=an_id(n), block_range=(n, n + 1), files={"a": {"url": "http://h/a", "size": 10**8 * (1 + n % 3)}})
        for n in range(200)
    ]
    (tmp_path / "chunks.jsonl").write_bytes(b"".join(want.to_json() for want in wants))
    (tmp_path / "workers.jsonl").write_text(BLOCKS["jsonl"].text)
    (tmp_path / "reports").mkdir()
    steps = transcript([BLOCKS["console"]])
    done = ran_by_shell(played(steps), tmp_path, LC_ALL="C.UTF-8")
    *printed, rest = done.stdout.split("\x1e")
    assert done.stderr + rest == ""
    for (command, shown), text in zip(steps, printed, strict=True):
        assert like(shown).fullmatch(text), f"$ {command}{text}"
    assert len(steps) > 3


def test_documents_of_the_page_can_be_taken() -> None:
    workers = [WorkerDocument.parse(line) for line in BLOCKS["jsonl"].text.splitlines()]
    assert [worker.capacity for worker in workers] == [900 * 10**9, 900 * 10**9, 1800 * 10**9, 900 * 10**9]
    report = json.loads(BLOCKS["json"].text.replace("…64 hex…", "a" * 64))
    assert Report.parse(json.dumps(report)).applied == "a" * 64
    assert set(report) == set(Report.model_fields)
    [row] = re.findall(r"^\| `placement.json` \| (.*) \|$", TEXT, re.MULTILINE)
    named = re.findall("`([a-z0-9]+)`", row)
    assert set(named) == (set(Pointer.model_fields) | set(PublishedList.model_fields)) - {"format"}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--silent", "`--silent` (120 s)"),
        ("--grace", "`--grace` (600 s)"),
        ("--full", "`--full` (95 %)"),
        ("--in-flight", "`--in-flight` (100 GB)"),
        ("--moves", "`--moves` (10,000)"),
    ],
)
def test_figures_of_the_page_are_the_defaults(option: str, says: str) -> None:
    assert says in " ".join(TEXT.split())
    arguments = build_parser({"place"}).parse_args(["place", "x", "--workers", "x", "--to", "x"])
    value = getattr(arguments, option[2:].replace("-", "_"))
    number = float(re.findall(r"[0-9,.]+", says)[-1].replace(",", ""))
    assert value in {number, number / 100, number * 10**9}


def test_bounds_of_the_page_are_those_of_a_placement() -> None:
    assert (Bounds().tolerance, Bounds().drops, Bounds().brake, KEPT_S) == (0.04, 0.2, 0.25, 86_400.0)
    for said in ("4 % from its share", "a fifth of its copies", "a quarter of all copies", "stays for a day"):
        assert said in " ".join(TEXT.split())


def test_metrics_of_the_page_are_those_that_are_written() -> None:
    rows = re.findall(r"^\| `(fsdm_place_\w+)(?:\{(\w+)\})?` \| (.+) \|$", TEXT, re.MULTILINE)
    assert rows == [(metric.name, metric.label, metric.help) for metric in METRICS]
