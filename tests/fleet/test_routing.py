"""The way of a query: each part is asked of a node that holds it, once at a time, and is answered once or named."""

from random import Random

import pytest

from fsdm.fleet.members import Members, beat_interval_s
from fsdm.fleet.routes import Holders, Part
from fsdm.fleet.routing import LOSSES_MAX, Order, Routing
from fsdm.model.errors import NotHeldError, QueryDiedError
from fsdm.model.layout import Place
from tests.support.chunks import an_id


def seen(*nodes: str, at: float = 0.0, **last_seen: float) -> dict[str, dict[str, object]]:
    """What a scheduler says of the workers of these nodes."""
    return {
        f"tcp://{node}": {"metrics": {"fsdm": {"node": node}}, "last_seen": last_seen.get(node, at)} for node in nodes
    }


class World:
    """A query for parts with these holders, on nodes that all answer."""

    def __init__(self, *held: str | Holders, nodes: str = "abc", patience_s: float = 10.0) -> None:
        places = [Place.of("d" * 64, range(n, n + 1), an_id()) for n in range(len(held))]
        self.held = dict(zip(places, [Holders(tuple(h)) if isinstance(h, str) else h for h in held], strict=True))
        self.nodes = nodes
        self.members = Members(5.0, 30.0)
        parts = [Part(place, place.block_range) for place in places]
        self.routing = Routing(parts, self.members, patience_s, Random(3))

    def ask(self, now: float = 0.0) -> dict[str, Order]:
        """The next orders, by node; those that are there have just beaten."""
        self.members.see(seen(*self.nodes, at=now), now)
        orders = self.routing.next_orders(self.held.__getitem__, now)
        found = {order.node: order for order in orders}
        assert len(found) == len(orders)
        return found


def test_each_node_is_asked_once_for_parts_that_it_holds_and_as_much_as_others() -> None:
    world = World(*["ab", "bc", "ca"] * 40)
    orders = world.ask()
    assert sorted(part for order in orders.values() for part in order.parts) == list(range(120))
    assert {node: round(len(order.parts), -1) for node, order in orders.items()} == {"a": 40, "b": 40, "c": 40}
    for node, order in orders.items():
        assert order.address == f"tcp://{node}"
        assert all(node in ["ab", "bc", "ca"][part % 3] for part in order.parts)
    assert world.ask() == {}
    assert not world.routing.is_waiting


def test_part_that_a_node_does_not_have_is_asked_of_another_and_never_of_it_again() -> None:
    world = World("a", "ab")
    first = world.ask()
    world.routing.answered(first["a"].number, dict.fromkeys(first["a"].parts, "the chunk is not here"))
    again = world.ask(1.0)
    assert "a" not in again
    with pytest.raises(NotHeldError, match=r"blocks \[0, 1\) .*: a: the chunk is not here$"):
        world.ask(12.0)


def test_part_is_asked_again_of_a_node_that_did_not_have_it_when_the_routes_have_changed() -> None:
    world = World("a")
    world.routing.answered(world.ask()["a"].number, {0: "the chunk is not here"})
    assert world.ask(1.0) == {}
    world.routing.told_anew()
    assert world.ask(2.0)["a"].parts == (0,)


def test_nobody_is_asked_for_longer_than_the_patience_since_the_last_one_could_be() -> None:
    world = World("a", nodes="")
    assert world.ask(0.0) == {}
    assert world.ask(9.0) == {}
    world.nodes = "a"
    order = world.ask(9.5)["a"]
    world.nodes = ""
    world.routing.lost(order.number, "its worker has ended", 20.0)
    assert world.ask(20.0) == {}  # it waits anew
    with pytest.raises(NotHeldError, match="a: the scheduler has no worker of it"):
        world.ask(30.5)


def test_part_without_a_holder_is_named() -> None:
    with pytest.raises(NotHeldError, match="no node has confirmed it"):
        World("", patience_s=0.0).ask()


def test_lost_parts_are_asked_of_others_alone_and_together_with_no_other_part() -> None:
    world = World("ab", "ab", "b")
    first = world.ask()
    lost = first["a"].parts
    world.routing.lost(first["a"].number, "its worker has ended", 1.0)
    again = world.ask(1.0)
    assert again["b"].parts == lost
    assert again["b"].is_alone
    assert not first["b"].is_alone
    assert world.routing.answered(first["a"].number, {}) is None  # too late


def test_node_that_was_lost_is_asked_last_for_a_while() -> None:
    world = World("ab", "ab", "ab", "ab")
    world.members.lost("a", 0.0)
    assert set(world.ask(1.0)) == {"b"}
    other = World("ab", "ab", "ab", "ab")
    other.members.lost("a", 0.0)
    assert set(other.ask(30.0)) == {"a", "b"}
    alone = World("a")
    alone.members.lost("a", 0.0)
    assert set(alone.ask(1.0)) == {"a"}


def test_part_that_is_lost_again_and_again_is_named_with_what_it_was_lost_with() -> None:
    world = World("abcd", nodes="abcd")
    for number in range(LOSSES_MAX - 1):
        [order] = world.ask(number).values()
        world.routing.lost(order.number, "its worker has ended", number)
    [order] = world.ask(9.0).values()
    with pytest.raises(QueryDiedError, match=rf"blocks \[0, 1\) .* lost 3 times .*{order.node}: its worker has ended"):
        world.routing.lost(order.number, "its worker has ended", 9.0)


def test_what_is_withdrawn_is_asked_again_and_nobody_is_to_blame() -> None:
    world = World("a")
    for now in range(10):
        order = world.ask(now)["a"]
        assert not order.is_alone
        world.routing.withdrawn([order.number, 99])


def test_worker_is_silent_when_what_the_scheduler_last_saw_does_not_change_whatever_its_clock_says() -> None:
    members = Members(5.0, 30.0)
    members.see(seen("a", "b", at=1e9), 100.0)
    members.see(seen("a", "b", a=1e9 + 1, b=1e9), 105.5)
    assert members.trouble("tcp://a", 105.5) is None
    assert members.trouble("tcp://b", 105.5) == "its worker has been silent for 5.5 s"
    assert members.live(105.5) == {"a": ["tcp://a"]}
    assert members.absence("b", 105.5) == "its worker has been silent for 5.5 s"
    members.see(seen("a", "b", a=1e9 + 2, b=1e9 + 2), 106.0)
    assert set(members.live(106.0)) == {"a", "b"}
    members.see(seen("a"), 107.0)
    assert members.trouble("tcp://b", 107.0) == "its worker has ended"


def test_silence_is_longer_where_workers_beat_more_seldom() -> None:
    from distributed.scheduler import heartbeat_interval

    assert [beat_interval_s(n) for n in (1, 10, 11, 49, 50, 199, 200, 2000)] == [
        heartbeat_interval(n) for n in (1, 10, 11, 49, 50, 199, 200, 2000)
    ]
    members = Members(5.0, 30.0)
    many = [f"n{n}" for n in range(1000)]
    members.see(seen(*many), 0.0)
    assert members.trouble("tcp://n1", 17.9) is None
    assert members.trouble("tcp://n1", 18.1) is not None


def test_workers_that_are_no_nodes_are_not_asked() -> None:
    members = Members(5.0, 30.0)
    members.see({"tcp://x": {"metrics": {}, "last_seen": 1.0}, "tcp://y": {"metrics": None, "last_seen": 1.0}}, 0.0)
    assert members.live(0.0) == {}


def test_node_with_two_workers_has_another_where_one_is_silent() -> None:
    members = Members(5.0, 30.0)
    members.see(seen("a"), 0.0)
    two = seen("a") | {"tcp://a2": {"metrics": {"fsdm": {"node": "a"}}, "last_seen": 7.0}}
    members.see(two, 6.0)
    assert members.live(6.0) == {"a": ["tcp://a2"]}


def test_worker_is_not_silent_for_the_time_that_the_scheduler_took_to_answer() -> None:
    members = Members(5.0, 30.0)
    members.see(seen("a"), 0.0)
    members.see(seen("a"), 9.0, took_s=8.5)
    assert members.trouble("tcp://a", 9.0) is None
    members.see(seen("a"), 15.0)
    assert members.trouble("tcp://a", 15.0) == "its worker has been silent for 6.5 s"


def test_worker_that_is_paused_is_asked_nothing_new() -> None:
    members = Members(5.0, 30.0)
    members.see({address: worker | {"status": "paused"} for address, worker in seen("a").items()}, 0.0)
    assert members.live(0.0) == {}
    assert members.trouble("tcp://a", 0.0) is None
    assert members.absence("a", 0.0) == "its worker is paused"
