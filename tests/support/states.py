"""Markers and failures for the plan."""

from typing import Any

from fsdm.model.documents import Failure
from fsdm.model.layout import Place
from fsdm.model.state import Marker
from fsdm.reconcile.recovery import stamp

ID, NOW = "a" * 64, 1000.0

OLD, NEW = Place.of("d" * 64, range(10), ID), Place.of("d" * 64, range(20), ID)

WANT, DELETE = Marker(1, 100, 1, 50), Marker(2, 200, 2, 0)


def _failure(kind: Any = "transfer", until: float | None = NOW + 9, marker: Marker | None = WANT, **kw: Any) -> Failure:
    document = {"error": "e", "first_at": 1, "last_at": 2, "next_attempt_at": until, "marker": stamp(marker), **kw}
    return Failure(id=ID, kind=kind, **document)
