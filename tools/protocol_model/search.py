"""Search all states of a model: each must be right, and every fair run must settle.

A model tells its states where it starts, the steps that lead on from a state, what is wrong with a state, and whether
it is settled: nothing left to do, and as it should be. States are visited breadth first, so a counterexample is a
shortest way to what is wrong.

A run is fair if no process that must go on (`Step.must`) is left standing for ever while it can: weak fairness, for
each process by itself. A crash, a tick of the clock and the begin of something new need never come. Invariant: `search`
finds no counterexample only if each state that can be reached is right, and each fair run, from whatever state, gets to
a settled one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

S = TypeVar("S", bound="Hashable")


class Step(NamedTuple, Generic[S]):
    """An atomic step of the process `who`; `must`: it does not stand still before it for ever."""

    who: str
    what: str
    state: S
    must: bool = True


class Model(Protocol[S]):
    """A model that can be searched."""

    def starts(self) -> Iterable[S]:
        """Yield the states that a run can begin in."""

    def steps(self, state: S) -> Iterable[Step[S]]:
        """Yield all that can happen next."""

    def wrong_with(self, state: S) -> str:
        """Return what is wrong with a state, or nothing."""

    def settled(self, state: S) -> bool:
        """Tell whether nothing is left to do, and all is as it was asked for."""

    def show(self, state: S) -> str:
        """Show a state in one line."""


@dataclass(frozen=True)
class Counterexample:
    """A run that goes wrong: its steps, each with its state; `again` can be repeated for ever."""

    wrong: str
    trace: tuple[str, ...]
    again: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.wrong, *self.trace]
        return "\n".join([*lines, "… and then for ever:", *self.again] if self.again else lines)


@dataclass(frozen=True)
class Result:
    """The number of states, and the first thing that is wrong, if any is."""

    states: int
    counterexample: Counterexample | None


class TooManyStatesError(Exception):
    """An error: the bound on states was reached before all of them were seen."""


def search(model: Model[S], *, most: int = 10_000_000) -> Result:
    """Look at every state; return their number and the first thing that is wrong, if any is.

    Raises:
        TooManyStatesError: there are more than `most` states.
    """
    return _Search(model, most).run()


class _Search(Generic[S]):
    def __init__(self, model: Model[S], most: int) -> None:
        self._model = model
        self._most = most
        self._number: dict[S, int] = {}
        self._came: list[tuple[int, str]] = []  # from which state, by what
        self._edges: list[list[tuple[str, bool, int]]] = []  # only among states that are not settled

    def run(self) -> Result:
        wrong = self._visit_all()
        return Result(len(self._number), wrong or self._never_settled())

    # ---------------------------------------------------------------------------------------------------------- safety

    def _visit_all(self) -> Counterexample | None:
        queue: deque[S] = deque()
        for start in self._model.starts():
            if self._met(start, -1, "it begins", queue) is None:
                return self._route(start, self._model.wrong_with(start))
        while queue:
            state = queue.popleft()
            here = self._number[state]
            edges = []
            for step in self._model.steps(state):
                there = self._met(step.state, here, f"{step.who}: {step.what}", queue)
                if there is None:
                    return self._route(step.state, self._model.wrong_with(step.state))
                edges.append((step.who, step.must, there))
            self._edges.append([] if self._model.settled(state) else edges)
        return None

    def _met(self, state: S, before: int, by: str, queue: deque[S]) -> int | None:
        """Return the number of a state, new or known; None where it is wrong."""
        known = self._number.get(state)
        if known is not None:
            return known
        if len(self._number) >= self._most:
            raise TooManyStatesError(f"more than {self._most} states")
        self._number[state] = len(self._came)
        self._came.append((before, by))
        queue.append(state)
        return None if self._model.wrong_with(state) else self._number[state]

    def _route(self, to: S, wrong: str, again: Sequence[tuple[str, int]] = ()) -> Counterexample:
        states = list(self._number)
        trace = []
        here = self._number[to]
        while here >= 0:
            before, by = self._came[here]
            trace.append(self._line(by, states[here]))
            here = before
        return Counterexample(wrong, tuple(reversed(trace)), tuple(self._line(by, states[n]) for by, n in again))

    def _line(self, by: str, state: S) -> str:
        return f"  {by:<76} {self._model.show(state)}"

    # -------------------------------------------------------------------------------------------------------- liveness

    def _never_settled(self) -> Counterexample | None:
        """Find a fair run that never settles: states in which it goes round, or stands, for ever."""
        states = list(self._number)
        found: list[int] | None = None
        for component in _components(self._edges):
            if self._model.settled(states[component[0]]) or not self._is_fair(component):
                continue
            if found is None or min(component) < min(found):
                found = component
        if found is None:
            return None
        first = min(found)
        return self._route(states[first], "it never settles", self._round(first, found))

    def _is_fair(self, component: list[int]) -> bool:
        inside = set(component)
        waiting = {who for who, must, _ in self._edges[component[0]] if must}
        moved: set[str] = set()
        for here in component:
            can = {who for who, must, _ in self._edges[here] if must}
            waiting &= can
            moved |= {who for who, must, there in self._edges[here] if must and there in inside}
        return waiting <= moved

    def _round(self, first: int, component: list[int]) -> list[tuple[str, int]]:
        """Find a way round from `first` on which each process of the component does what it must."""
        inside = set(component)
        route: list[tuple[str, int]] = []
        here = first
        for mover in sorted(
            {who for n in component for who, must, there in self._edges[n] if must and there in inside}
        ):
            route += self._way_inside(here, inside, mover, None)
            here = route[-1][1]
        return route if here == first else route + self._way_inside(here, inside, None, first)

    def _way_inside(self, here: int, inside: set[int], mover: str | None, to: int | None) -> list[tuple[str, int]]:
        """Find the shortest way that ends with a step that `mover` must do, or in the state `to`."""
        states = list(self._number)
        ways: deque[tuple[int, list[tuple[str, int]]]] = deque([(here, [])])
        seen = {here}
        while ways:
            at, route = ways.popleft()
            for step in self._model.steps(states[at]):
                there = self._number[step.state]
                if there not in inside:
                    continue
                longer = [*route, (f"{step.who}: {step.what}", there)]
                if there == to or (step.must and step.who == mover):
                    return longer
                if there not in seen:
                    seen.add(there)
                    ways.append((there, longer))
        raise AssertionError("a component is connected")


def _components(edges: Sequence[Sequence[tuple[str, bool, int]]]) -> Iterator[list[int]]:
    """Yield the strongly connected components of a graph (Tarjan 1972, without recursion)."""
    order = [0] * len(edges)  # 0: not visited
    lowest = [0] * len(edges)
    on_stack = [False] * len(edges)
    stack: list[int] = []
    count = 0
    for root in range(len(edges)):
        if order[root]:
            continue
        work = [(root, 0)]
        while work:
            node, child = work.pop()
            if child == 0:
                count += 1
                order[node] = lowest[node] = count
                stack.append(node)
                on_stack[node] = True
            for index in range(child, len(edges[node])):
                there = edges[node][index][2]
                if not order[there]:
                    work += [(node, index + 1), (there, 0)]
                    break
                if on_stack[there]:
                    lowest[node] = min(lowest[node], order[there])
            else:
                if lowest[node] == order[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(stack.pop())
                        on_stack[component[-1]] = False
                    yield component
                if work:
                    parent = work[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[node])
