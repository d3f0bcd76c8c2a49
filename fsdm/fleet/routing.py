"""The way of a query through the fleet: which node is asked for which parts, and what follows when it fails. Pure.

Invariants: a part is asked of one node at a time, that holds its chunk, and of none twice that has not had it; each is
answered once. What was lost with a worker is asked for again in a process of its own, so that it ends no other worker.
What nobody answers for is an error that names it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import NotHeldError, QueryDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from random import Random

    from fsdm.fleet.members import Members
    from fsdm.fleet.routes import Holders, Part
    from fsdm.model.layout import Place

LOSSES_MAX: Final = 3  # so often a part may be lost with its worker; from the second time on it runs by itself


@dataclass(frozen=True, slots=True)
class Order:
    """A task: the parts that a worker of a node is asked for. `is_alone`: in a process of its own."""

    number: int
    node: str
    address: str
    parts: tuple[int, ...]
    is_alone: bool = False


@dataclass(slots=True)
class _Asked:
    """A part, and what has become of it: nodes that did not have it, and those that were lost with it."""

    part: Part
    refused: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)  # why, by node
    losses: int = 0
    without_since: float | None = None  # nobody can be asked, since then


@dataclass(slots=True)
class Routing:
    """A query on its way; all times are seconds of one monotonic clock.

    `patience_s`: how long a part waits while none of its holders answers.
    """

    parts: Sequence[Part]
    members: Members
    patience_s: float
    random: Random
    orders: dict[int, Order] = field(default_factory=dict)  # those that are under way
    _asked: list[_Asked] = field(default_factory=list)
    _waiting: set[int] = field(default_factory=set)
    _count: int = 0

    def __post_init__(self) -> None:
        self._asked = [_Asked(part) for part in self.parts]
        self._waiting = set(range(len(self._asked)))

    @property
    def is_waiting(self) -> bool:
        """Some parts are asked of nobody."""
        return bool(self._waiting)

    def next_orders(self, holders: Callable[[Place], Holders], now: float) -> list[Order]:
        """Ask for the parts that nobody is asked for, as far as any of their holders answers.

        Raises:
            NotHeldError: a part has waited for longer than `patience_s`.
        """
        live = self.members.live(now)
        cooling = {node for node in live if self.members.is_cooling(node, now)}
        load = Counter({order.node: len(order.parts) for order in self.orders.values()})
        chosen: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
        for number in sorted(self._waiting):
            one = self._asked[number]
            held = holders(one.part.place)
            node = self._choose(one, held, live, cooling, load)
            if node is None:
                self._has_nobody(one, held, now)
            else:
                one.without_since = None
                load[node] += 1
                chosen[node, bool(one.lost)].append(number)
        return [self._order(node, live[node], some, is_alone) for (node, is_alone), some in chosen.items()]

    def _choose(
        self, one: _Asked, held: Holders, live: Mapping[str, object], cooling: set[str], load: Counter[str]
    ) -> str | None:
        """Choose the least asked of the holders; a node that was lost just now, or is to lose the chunk, at last."""
        able = [node for node in (*held.keeping, *held.leaving) if node in live and node not in one.refused]
        if not able:
            return None
        leaving = set(held.leaving)
        rank = {node: (node in one.lost, node in cooling, node in leaving, load[node]) for node in able}
        best = min(rank.values())
        return self.random.choice([node for node in able if rank[node] == best])

    def _order(self, node: str, addresses: Sequence[str], parts: list[int], is_alone: bool) -> Order:
        self._count += 1
        order = Order(self._count, node, self.random.choice(addresses), tuple(parts), is_alone)
        self.orders[order.number] = order
        self._waiting.difference_update(parts)
        return order

    def _has_nobody(self, one: _Asked, held: Holders, now: float) -> None:
        if one.without_since is None:
            one.without_since = now
        if now - one.without_since < self.patience_s:
            return
        nodes = (*held.keeping, *held.leaving)
        why = "; ".join(f"{node}: {one.refused.get(node) or self.members.absence(node, now)}" for node in nodes)
        what = f"nobody answers for {one.part}: {why or 'no node has confirmed it'}"
        hint = "start the workers of these nodes again, or wait until its copies are made anew"
        raise NotHeldError(what, hint=hint)

    def answered(self, number: int, refused: Mapping[int, str]) -> Order | None:
        """Take the answer of an order, but for the parts that its node did not have; None for one that is over."""
        order = self.orders.pop(number, None)
        if order is not None:
            for part, why in refused.items():
                self._asked[part].refused[order.node] = why
            self._waiting.update(refused)
        return order

    def lost(self, number: int, why: str, now: float) -> None:
        """Take in that a worker was lost with an order: its parts are asked of others.

        Raises:
            QueryDiedError: one of them was lost so often that it may be what ends the workers.
        """
        order = self.orders.pop(number)
        self.members.lost(order.node, now)
        self._waiting.update(order.parts)
        for part in order.parts:
            one = self._asked[part]
            one.lost[order.node] = why
            one.losses += 1
            if one.losses >= LOSSES_MAX:
                told = "; ".join(f"{node}: {why}" for node, why in one.lost.items())
                what = f"{one.part} was lost {one.losses} times with the worker that ran it: {told}"
                raise QueryDiedError(what, hint="look into the workers' logs: the query may end or freeze them")

    def withdrawn(self, numbers: Iterable[int]) -> None:
        """Take in that orders came to nothing by no fault of their workers."""
        for number in numbers:
            if (order := self.orders.pop(number, None)) is not None:
                self._waiting.update(order.parts)

    def told_anew(self) -> None:
        """Ask those again that did not have a chunk: the routes have changed."""
        for one in self._asked:
            one.refused.clear()
