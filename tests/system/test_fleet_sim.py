"""The fleet in memory: its year and its stories end as they must, and with a fault in the placer they do not."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm.fleet import placing
from fsdm.fleet.filling import Loads
from tests.support import ran
from tools.fleet_sim import fleet
from tools.fleet_sim.stories import STORIES
from tools.fleet_sim.year import Year

ROOT = Path(__file__).parents[2]


def missed(story: str) -> set[str]:
    """The checks of a story that are not met."""
    return {figure.what for figure in STORIES[story]() if not figure.met}


@pytest.mark.parametrize("story", sorted(STORIES))
def test_failure_of_other_systems_is_none_here(story: str) -> None:
    assert missed(story) == set()


def test_year_moves_little_more_than_the_least_and_loses_nothing() -> None:
    found = Year(chunks=3000, workers=64, fortnights=4).run()
    assert [figure for figure in found if not figure.met] == []
    assert len(found) == 11


def drop_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(placing._Placing, "_drops", lambda self, staying, leaving: leaving)


def forget_what_was_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fleet, "COUNTED_S", 0.0)


def send_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Loads, "open", lambda self, room, flight_limit: room)


def never_brake(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(placing, "check_brake", lambda *_: None)


def have_no_grace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fleet, "GRACE_S", 0.0)
    never_brake(patch)


def wait_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fleet, "GRACE_S", 1e9)


@pytest.mark.parametrize(
    ("fault", "story", "says"),
    [
        (drop_at_once, "planned_is_not_held", "copies on what has drained"),
        (forget_what_was_dropped, "large_placement", "a node's own brake held deletes back"),
        (send_everything, "first_new_node", "bytes in flight to a worker"),
        (never_brake, "many_are_gone", "bytes fetched"),
        (have_no_grace, "restart_of_all", "bytes fetched"),
        (wait_for_ever, "repair_beside_rebalance", "chunks with fewer than 3 copies"),
    ],
)
def test_fault_in_the_placer_is_seen_by_its_story(
    fault: Callable, story: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert says in missed(story)


def test_command_says_by_its_exit_code_whether_all_is_as_it_must_be(tmp_path: Path) -> None:
    run = ran(sys.executable, "-m", "tools.fleet_sim", "--only", "many_are_gone", cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "many_are_gone: bytes fetched" in run.stdout
    assert "8 checks, 0 missed" in run.stderr
    year = ["--only", "year", "--chunks", "2", "--workers", "64", "--fortnights", "1"]  # it cannot be balanced
    assert ran(sys.executable, "-m", "tools.fleet_sim", *year, cwd=ROOT).returncode == 1
