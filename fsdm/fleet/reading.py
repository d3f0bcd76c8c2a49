"""The workers of a fleet, as they are listed and as they report: who is live, away or gone.

A report that cannot be read says nothing, and is no reason to take its worker for gone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fsdm.fleet.documents import WorkerDocument, presence_of
from fsdm.fleet.inventory import Presence, Worker, Workers
from fsdm.fleet.report import Report
from fsdm.model.documents import in_its_line
from fsdm.model.errors import InvalidInputError
from fsdm.store.filesystem import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsdm.fleet.documents import PublishedList

    Texts = Mapping[str, bytes]  # of reports, by NAME.json

REPORT_MAX_BYTES: Final = 1 << 26
WORKERS_MAX_BYTES: Final = 1 << 26
SUFFIX: Final = ".json"


def read_workers(path: str) -> list[WorkerDocument]:
    """Read a list of workers: JSON Lines.

    Raises:
        InvalidInputError: it cannot be read, or a line cannot be taken; the message names it.
    """
    data = _read(path, WORKERS_MAX_BYTES)
    if data is None:
        raise InvalidInputError(f"{path} cannot be read: it is not a file", hint="check the path")
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                found.append(WorkerDocument.parse(line))
            except InvalidInputError as e:
                hint = e.hint or 'a line is as {"name": "a1", "capacity": "900G", "zone": "r1"}'
                raise InvalidInputError(f"{path}:{number}: {in_its_line(e)}", hint=hint) from None
    return found


def read_reports(where: str | Texts) -> tuple[dict[str, Report], dict[str, str]]:
    """Read the reports NAME.json of a directory, or those that are given with their names.

    Returns them by the name of the worker, and what is wrong with the others.

    Raises:
        InvalidInputError: the directory cannot be listed.
    """
    if not isinstance(where, str):
        return _parsed(where.items())
    directory, broken = where, dict[str, str]()
    try:
        entries = sorted(os.listdir(directory))
    except OSError as e:
        raise InvalidInputError(f"{directory} cannot be listed: {e.strerror}", hint="check the path") from e
    texts = {}
    for entry in entries:
        name = entry.removesuffix(SUFFIX)
        if name == entry or name.startswith("."):
            continue
        try:
            texts[entry] = _read(os.path.join(directory, entry), REPORT_MAX_BYTES)
        except InvalidInputError as e:
            broken[name] = str(e)
    found, others = _parsed(texts.items())
    return found, broken | others


def _parsed(texts: Iterable[tuple[str, bytes | None]]) -> tuple[dict[str, Report], dict[str, str]]:
    found, broken = {}, {}
    for file, text in texts:
        name = file.removesuffix(SUFFIX)
        try:
            if text is None:
                broken[name] = "it is not a file"
            else:
                found[name] = Report.parse(text)
        except InvalidInputError as e:
            broken[name] = str(e)
    return found, broken


def _read(path: str, limit: int) -> bytes | None:
    try:
        found = read_regular(os.path.realpath(path), limit)
    except OSError as e:
        raise InvalidInputError(f"{path} cannot be read: {e.strerror}", hint="check the path") from e
    return None if found is None else found[1]


def workers_of(
    documents: list[WorkerDocument],
    lists: Mapping[str, PublishedList],
    reports: Mapping[str, Report],
    broken: Mapping[str, str],
    *,
    now: float,
    silent_s: float,
    grace_s: float,
    peers: str = "",
) -> Workers:
    """Return all workers with their presence; one that has a list and is no longer listed is gone.

    `peers` is the URL at which those are served that name none: see `WorkerDocument.worker`.
    A worker that has not reported yet was seen when it was given its first list; one that has none is live.
    """
    found = []
    for document in documents:
        seen_at = now
        if document.name in reports:
            seen_at = reports[document.name].at
        elif document.name in lists:
            seen_at = lists[document.name].since
        presence = presence_of(now, seen_at, silent_s, grace_s)
        found.append(document.worker(Presence.AWAY if document.name in broken else presence, peers))
    known = {document.name for document in documents}
    found += [Worker(name, 0, presence=Presence.GONE) for name in lists if name not in known]
    return Workers.of(found)
