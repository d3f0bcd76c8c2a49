"""What `fsdm run` says on stderr, a line at a time."""

import json
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fsdm.cli.event_log import OWN, EventLog
from fsdm.model.events import Event, Kind
from tests.support import Source, eventually, fsdm, reconciling
from tests.support.chunks import a_want, put_want

ID = "a" * 64
AT = datetime(2026, 3, 1, 12, 30, 15, 250_000, UTC)
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def said(what: logging.LogRecord | Event, *, as_json: bool) -> list[str]:
    lines: list[str] = []
    log = EventLog(as_json=as_json, write=lines.append)
    (log.event if isinstance(what, Event) else log.handle)(what)
    return lines


def record(level: int, message: str, *args: object, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("fsdm", level, __file__, 1, message, args, exc_info)


def test_an_event_is_a_line_of_text_that_moves_no_cursor() -> None:
    (line,) = said(Event("failed", ID, "HTTP 500\x1b[2J\n"), as_json=False)
    assert STAMP.sub("at", line) == "at warning 🔥 aaaaaaaaaaaa failed: HTTP 500\\x1b[2J\\n"


def test_a_line_of_text_has_its_local_time_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.cli.event_log.datetime", Mock(now={UTC: AT}.__getitem__))
    (line,) = said(Event("started", ID, "2 files"), as_json=False)
    assert line == f"{AT.astimezone():%Y-%m-%d %H:%M:%S} info    📡 aaaaaaaaaaaa download starts: 2 files"


def test_who_wants_quiet_hears_of_what_may_ask_for_an_action_alone() -> None:
    lines: list[str] = []
    log = EventLog(as_json=False, quiet=True, write=lines.append)
    kinds: tuple[Kind, ...] = ("started", "available", "size", "failed", "damaged")
    for kind in kinds:
        log.event(Event(kind, ID))
    log.handle(record(logging.WARNING, "cannot list"))
    assert [STAMP.sub("at", line) for line in lines] == [
        "at warning 🔥 aaaaaaaaaaaa failed",
        "at warning 🩹 aaaaaaaaaaaa taken out of service",
        "at warning cannot list",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_size_is_told_once_until_there_is_another(as_json: bool) -> None:
    lines: list[str] = []
    log = EventLog(as_json=as_json, write=lines.append)
    for text in ("1 of 9", "1 of 9", "2 of 9", "2 of 9", "1 of 9"):
        log.event(Event("size", "", text))
    assert len(lines) == 3


def test_an_event_is_a_json_object_with_time_level_and_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.cli.event_log.datetime", Mock(now={UTC: AT}.__getitem__))
    (line,) = said(Event("failed", ID, "HTTP 500 \udcff"), as_json=True)
    document = json.loads(line)
    assert datetime.fromisoformat(document.pop("time")) == AT
    assert line.isprintable()
    assert document == {
        "level": "warning", "event": "failed", "message": "failed", "chunk_id": ID, "text": "HTTP 500 \udcff",
    }  # fmt: skip
    (line,) = said(Event("size", "", "1 of 2"), as_json=True)
    assert json.loads(line)["level"] == "info"
    assert "chunk_id" not in json.loads(line)


def test_a_warning_of_the_log_has_the_form_of_the_events() -> None:
    warning = record(logging.WARNING, "cannot list %s", "/data/\x1b")
    assert [STAMP.sub("at", line) for line in said(warning, as_json=False)] == ["at warning cannot list /data/\\x1b"]
    (line,) = said(warning, as_json=True)
    document = json.loads(line)
    assert document["time"].endswith("Z")
    assert (document["level"], document["event"], document["message"]) == ("warning", "log", "cannot list /data/\x1b")


def test_a_defect_is_told_with_its_trace() -> None:
    try:
        raise KeyError("boo")
    except KeyError as e:
        defect = record(logging.ERROR, "a pass failed", exc_info=(type(e), e, e.__traceback__))
    lines = said(defect, as_json=False)
    assert STAMP.sub("at", lines[0]) == "at error   a pass failed"
    assert lines[-1].endswith(" error   KeyError: 'boo'")
    (line,) = said(defect, as_json=True)
    assert "KeyError: 'boo'" in json.loads(line)["error"]


@pytest.mark.parametrize("as_json", [True, False])
def test_info_records_are_not_written(as_json: bool) -> None:
    log = EventLog(as_json=as_json, write=lambda _: pytest.fail("it was said"))
    logger = logging.getLogger("test_talk")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    logger.info("an event is logged as well")
    logger.removeHandler(log)


def test_what_the_command_line_says_is_info_and_no_warning() -> None:
    own = logging.LogRecord(OWN, logging.INFO, __file__, 1, "config.toml says jobs 5", (), None)
    assert [STAMP.sub("at", line) for line in said(own, as_json=False)] == ["at info    config.toml says jobs 5"]
    assert json.loads(said(own, as_json=True)[0])["level"] == "info"


def test_troubles_and_errors_are_json_where_the_log_is(data_dir: Path, source: Source) -> None:
    missing = a_want(files={"a": f"{source.url}/missing"})
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    put_want(data_dir, missing)
    done = fsdm("run", "-d", data_dir, "--once", "--log-format", "json")
    assert done.returncode == 4
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["level"], last["message"][:64]) == ("warning", missing.id)
    with reconciling(data_dir):
        done = fsdm("run", "-d", data_dir, "--log-format", "json")
    assert done.returncode == 5
    assert json.loads(done.stderr)["error"]["type"] == "ReconcilerRunsError"


@pytest.mark.parametrize("form", ["json", "text"])
def test_run_says_an_event_a_line(data_dir: Path, source: Source, form: str) -> None:
    good, bad = source.chunk(), a_want(files={"a": f"{source.url}/missing"})
    with reconciling(data_dir, "--log-format", form) as process:
        for chunk in (good, bad):
            put_want(data_dir, chunk)
        eventually(lambda: (data_dir / "failed" / bad.id).exists() and not (data_dir / "want" / good.id).exists())
        process.terminate()
        out, err = process.communicate()
    assert process.returncode == 0
    assert out == ""
    if form == "text":
        assert f"✅ {good.id[:12]} available" in err
        assert f"🔥 {bad.id[:12]} failed: {source.url}/missing: HTTP 404" in err
        return
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["level"] for line in lines if line.get("chunk_id") == bad.id] == ["info", "warning"]
    assert "available" in {line["event"] for line in lines if line.get("chunk_id") == good.id}


def test_json_events_go_with_log_lines_only_where_both_are_asked_for(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    for arguments, talks in (((), False), (("--log-format", "json"), True)):
        with reconciling(data_dir, "--json", *arguments) as process:
            put_want(data_dir, chunk)
            eventually(lambda: not os.listdir(data_dir / "want"))
            process.terminate()
            out, err = process.communicate()
        assert all(json.loads(line)["kind"] for line in out.splitlines())
        assert bool(err) == (talks and bool(out))
        chunk = source.chunk(start=20, end=30)
