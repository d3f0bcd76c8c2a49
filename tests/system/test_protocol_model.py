"""The protocol holds in every state of its model, and a model of it with a rule left out does not."""

import dataclasses
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import tools.protocol_model
from tools.protocol_model import acquiring, directories, markers
from tools.protocol_model.check import LONG, RIGHT, WRONG, main, result
from tools.protocol_model.search import Step, TooManyStatesError, search

GIVEN = "a ref was given, and the chunk was not available at any time since its lock"
LEFT = "a directory has left while a ref is held"
REMOVED = "a marker that is newer than the judged one was removed"
STUCK = "it never settles"

FOUND = dict.fromkeys(WRONG, STUCK) | {
    **dict.fromkeys(("UNLINK_AT_ONCE", "NO_SECOND_LOOK", "TEXT_UNSEEN", "TEXT_NOT_NAMED"), REMOVED),
    **dict.fromkeys(("SETTLED_AT_ONCE", "KNOWN_AT_ONCE"), REMOVED),
    **dict.fromkeys(("READY_BEFORE_LOCK", "NO_DELETE_AFTER_LOCK"), GIVEN),
    **dict.fromkeys(("READY_BY_PATH", "LOCK_UN", "NO_CLAIM", "QUARANTINED_AWAY"), LEFT),
    **dict.fromkeys(("ANY_OUTCOME", "PUT_OFF_TOLD"), "a waiter was told of an attempt that had failed before it asked"),
    "EVICTED_UNASKED": "a chunk was evicted before who waited for it had it",
    "EVICTED_HELD": "a chunk was evicted while a ref was held",
    "PUBLISHED_EARLY": "a chunk is available and not complete",
    "QUARANTINED_UNSEEN": "a chunk that is right was quarantined",
}

NAMED = {
    name.rstrip(".")
    for path in Path(tools.protocol_model.__path__[0]).glob("*.py")
    for name in re.findall(r"\b(?:model|store|verify|reconcile)\.[\w.]+", path.read_text())
}


@pytest.mark.parametrize("name", RIGHT)
def test_protocol_holds_in_every_state(name: str) -> None:
    found = result(RIGHT[name])
    assert found.counterexample is None, str(found.counterexample)
    assert found.states > 500


@pytest.mark.parametrize("name", FOUND)
def test_with_a_rule_left_out_it_does_not_hold(name: str) -> None:
    found = result(WRONG[name]).counterexample
    assert found is not None
    assert found.wrong == FOUND[name], str(found)
    assert bool(found.again) == (found.wrong == STUCK)


@pytest.mark.parametrize("name", FOUND)
def test_in_the_same_bounds_the_protocol_itself_holds(name: str) -> None:
    case = WRONG[name]
    found = result(dataclasses.replace(case, wrong=type(case.wrong).NOTHING))
    assert found.counterexample is None, str(found.counterexample)


def test_every_rule_that_can_be_left_out_is() -> None:
    rules = [*markers.Wrong, *directories.Wrong, *acquiring.Wrong]
    assert {rule.name for rule in rules} - {"NOTHING"} == set(WRONG) == set(FOUND)
    assert all(case.wrong.name == "NOTHING" for case in [*RIGHT.values(), *LONG.values()])


@pytest.mark.parametrize("name", sorted(NAMED))
def test_what_a_step_stands_for_is_there(name: str) -> None:
    assert pkgutil.resolve_name(f"fsdm.{name}") is not None


def test_counterexample_reads_as_a_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["READY_BY_PATH"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["READY_BY_PATH: READY is looked for by path, not through the descriptor", LEFT]
    deeds = [line.split("|")[0].strip() for line in lines[2:] if line]
    assert deeds[0] == "it begins"
    assert deeds[-1] == "reader A: step 3: not deleted; it has a ref"
    assert deeds.index("reader A: step 1: opens it") < deeds.index("reconciler: claim: LOCK_EX")


@dataclass
class Walk:
    """A model that is a graph: from, who, to, whether it must; `good` is where it settles."""

    edges: list[tuple[int, str, int, bool]]
    good: int = 9
    bad: int = -1

    def starts(self) -> Iterator[int]:
        yield 0

    def steps(self, state: int) -> Iterator[Step[int]]:
        for here, who, there, must in self.edges:
            if here == state:
                yield Step(who, f"to {there}", there, must)

    def wrong_with(self, state: int) -> str:
        return "bad" if state == self.bad else ""

    def settled(self, state: int) -> bool:
        return state == self.good

    def show(self, state: int) -> str:
        return str(state)


def test_search_finds_a_shortest_way_to_what_is_wrong() -> None:
    found = search(Walk([(0, "p", 1, True), (1, "p", 2, True), (2, "p", 3, True), (0, "q", 2, True)], bad=3))
    assert found.counterexample is not None
    assert [line.split()[:3] for line in found.counterexample.trace] == [
        ["it", "begins", "0"],
        ["q:", "to", "2"],
        ["p:", "to", "3"],
    ]


def test_search_finds_where_no_process_can_go_on() -> None:
    assert search(Walk([(0, "p", 1, True), (0, "q", 9, True)])).counterexample is not None
    assert search(Walk([(0, "p", 1, True), (1, "p", 9, True)])).counterexample is None


def test_step_that_need_not_come_does_not_count_as_going_on() -> None:
    assert search(Walk([(0, "p", 9, False)])).counterexample is not None


def test_round_counts_only_where_it_leaves_no_process_out() -> None:
    round_of_one = [(0, "p", 1, True), (1, "p", 0, True), (0, "q", 9, True), (1, "q", 9, True)]
    assert search(Walk(round_of_one)).counterexample is None  # q can go on all the time: it will
    found = search(Walk(round_of_one[:-1])).counterexample  # q can go on now and then only
    assert found is not None
    assert len(found.again) == 2


def test_search_says_when_there_are_more_states_than_it_may_visit() -> None:
    with pytest.raises(TooManyStatesError):
        search(Walk([(n, "p", n + 1, True) for n in range(9)]), most=5)
