"""The lives that are cut off everywhere, each a function of a `Life`; `LIVES` has them all.

In a life a reconciler may die as well, by `dies_at`, and a new one takes over: so also what a recovery does is cut off
everywhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.crash.life import Life


def first_start(life: Life) -> None:
    """There is no data directory; one is made, and a chunk comes."""
    life.want("b1")
    life.run()


def bring(life: Life) -> None:
    """Chunks come; one is missing at its source, and comes once it is there."""
    life.want("a1")
    life.source.missing.add("b1")
    life.want("b1")
    life.run()
    life.source.missing.clear()
    life.want("b1")
    life.run()


def resume(life: Life) -> None:
    """A large file comes in the end, after its connection has broken and its process has died."""
    life.source.breaks["l1"] = deque([3, 1])
    life.want("l1")
    life.run()
    life.run(after_s=10)
    life.wait(10)
    life.dies_at("fsync", "data/large")
    life.run(after_s=10)


def pieces(life: Life) -> None:
    """A large file comes in pieces, out of order; its process dies with holes in it."""
    life.source.in_pieces.add("l1")
    life.want("l1")
    life.dies_at("write", "PARTS.")
    life.dies_at("fsync", "data/large")
    life.run()


def another_version(life: Life) -> None:
    """Bytes of one version are no part of the other that is wanted meanwhile."""
    life.source.breaks["l1"] = deque([3])
    life.want("l1")
    life.run()
    life.want("l2")
    life.source.breaks["l2"] = deque([2])
    life.run()
    life.run(after_s=10)


def withdrawn(life: Life) -> None:
    """Bytes of a chunk go when it is no longer wanted, or is to be deleted."""
    life.source.breaks["l1"] = deque([2, 3])
    life.want("l1")
    life.run()
    life.delete("l")
    life.run()
    life.want("l1")
    life.run()
    life.withdraw("l")
    life.run()


def retire(life: Life) -> None:
    """A held chunk retires, is wanted again, retires again, goes, and is fetched anew."""
    life.hold("a")
    life.delete("a")
    life.run(4)
    life.want("a1")
    life.run()
    life.delete("a")
    life.run(4)
    life.release()
    life.run(after_s=10)
    life.want("a1")
    life.run()


def go_and_come(life: Life) -> None:
    """Chunks without a ref are deleted; one is wanted again before it has gone."""
    life.delete("a")
    life.run()
    life.delete("z")
    life.meanwhile("unlink", "data/blocks", lambda: life.want("z1"))
    life.run()


def too_late(life: Life) -> None:
    """A chunk that is to be published is deleted, then wanted again, then with other files."""
    life.want("a1")
    life.dies_at("rename", "chunks/")
    life.delete("a")
    life.run()
    life.want("a1")
    life.dies_at("rename", "chunks/")
    life.want("a2")
    life.run()


def replace(life: Life) -> None:
    """Other files for a chunk, in the same place while it is held, then in another one."""
    life.hold("a")
    life.want("a2")
    life.run(6)
    life.release()
    life.run(after_s=10)
    life.want("a3")
    life.run()


def retiring(life: Life) -> None:
    """A chunk is to go, and another process holds it all the while."""
    life.delete("a")
    life.run(4)


def replaced_while_held(life: Life) -> None:
    """Other files are wanted for a chunk, and another process holds it all the while."""
    life.want("a2")
    life.run(6)


def careless(life: Life) -> None:
    """Shells ask without the lock, and leave both markers."""
    life.move_want("b1")
    life.touch_delete("b")
    life.run()
    life.touch_delete("a")
    life.move_want("a1")
    life.run()
    life.touch_delete("a")
    life.run()


def durable_delete(life: Life) -> None:
    """A durable delete that waits for a ref is overruled by the want of a shell."""
    life.hold("a")
    life.delete("a")
    life.delete("z")
    life.run(6)
    life.move_want("a2")
    life.run(6)
    life.release()
    life.run(after_s=10)


def overtaken(life: Life) -> None:
    """A newer marker comes while the old one is being removed: before it is aside, and after."""
    life.move_want("a1")
    life.meanwhile("rename", ".judged-", lambda: life.move_want("a2"))
    life.run()
    life.move_want("a1")
    life.meanwhile("unlink", "want/.judged-", lambda: life.move_want("a2"))
    life.run()
    life.delete("a")
    life.meanwhile("rename", "delete/.judged-", lambda: life.move_want("a1"))
    life.run()


def failover(life: Life) -> None:
    """One process after the other dies, each a little further on, and the next one takes over."""
    life.want("b1")
    life.dies_at("rename", "READY")
    life.dies_at("rename", "chunks/")
    life.dies_at("unlink", "want/.judged-")
    life.run()
    life.delete("a")
    life.dies_at("unlink", "READY")
    life.dies_at("rename", "trash/")
    life.dies_at("unlink", "blocks")
    life.dies_at("unlink", "delete/.judged-")
    life.run()


def damaged(life: Life) -> None:
    """A held chunk's bytes change: verified, it is fetched again. The next time it is deleted."""
    life.hold("s")
    life.spoil()
    life.verify()
    life.run(8)
    life.release()
    life.run(after_s=10)
    life.spoil()
    life.verify()
    life.meanwhile("unlink", "/WANT", lambda: life.delete("s"))
    life.run()


def quarantined_twice(life: Life) -> None:
    """Processes die while a damaged chunk leaves service and its want comes back; others go on."""
    life.spoil()
    life.verify()
    life.dies_at("unlink", "READY")
    life.dies_at("link", "want/")
    life.dies_at("unlink", "/WANT")
    life.run()
    life.spoil()
    life.verify()
    life.meanwhile("link", "want/", lambda: life.touch_delete("s"))
    life.run()
    life.want("s1")
    life.run()


def registered(life: Life) -> None:
    """A chunk is registered and does not come; wanted, it comes; registered, it stays; deleted, all of it goes."""
    life.register("b1", here=False)
    life.run()
    life.want("b1")
    life.run()
    life.register("b1", here=True)
    life.run()
    life.touch_delete("b")
    life.run()
    life.want("a1")
    life.register("a1", here=False)
    life.run()


def cached(life: Life) -> None:
    """A registered chunk comes when it is asked for, is evicted, and comes again; a process dies on each way."""
    life.register("b1", here=False)
    life.acquire("b1")
    life.dies_at("rename", "chunks/")
    life.run()
    life.run(after_s=120)
    life.evict("b")
    life.dies_at("rename", "trash/")
    life.run()
    life.acquire("b1")
    life.run()


def given_up(life: Life) -> None:
    """Chunks that their sources do not have are given up, and come once they are asked for; processes die meanwhile."""
    life.gives_up()
    life.source.missing |= {"b1", "a1"}
    life.want("b1")
    life.dies_at("rename", "failed/")
    life.run()
    life.register("a1", here=False)
    life.acquire("a1")
    life.run()
    life.source.missing.clear()
    life.run(after_s=3600)
    life.retry("b1")
    life.dies_at("rename", "chunks/")
    life.retry("a1")
    life.dies_at("unlink", "failed/")
    life.run()


def damaged_and_given_up(life: Life) -> None:
    """A damaged chunk comes when it is asked for, and not before; processes die meanwhile."""
    life.gives_up()
    life.spoil()
    life.verify()
    life.dies_at("unlink", "READY")
    life.dies_at("unlink", "/WANT")
    life.run(after_s=3600)
    life.acquire("s1")
    life.dies_at("rename", "chunks/")
    life.run()


def indexed(life: Life) -> None:
    """Chunks come and are indexed, another version takes the place of one, one goes; its keys go with a merge."""
    life.want("b1")
    life.run()
    life.index()
    life.want("a1")
    life.run()
    life.index()
    life.want("a2")
    life.run()
    life.delete("b")
    life.run()
    life.index()


@dataclass(frozen=True, slots=True)
class Story:
    """A life, the chunks that are available `before` it, and those `held` by another process; are they indexed?"""

    live: Callable[[Life], None]
    before: tuple[str, ...] | None = ("z1",)  # None: not even a data directory
    held: tuple[str, ...] = ()
    is_indexed: bool = False

    def tell(self, life: Life) -> None:
        """Start a reconciler, and live."""
        life.start()
        self.live(life)


LIVES: Final = {
    story.live.__name__: story
    for story in (
        Story(first_start, before=None),
        Story(bring),
        Story(resume),
        Story(pieces),
        Story(another_version),
        Story(withdrawn),
        Story(retire, before=("a1", "z1")),
        Story(go_and_come, before=("a1", "z1")),
        Story(too_late),
        Story(replace, before=("a1", "z1")),
        Story(retiring, before=("a1", "z1"), held=("a1", "z1")),
        Story(replaced_while_held, before=("a1", "z1"), held=("a1",)),
        Story(careless, before=("a1", "z1")),
        Story(durable_delete, before=("a1", "z1")),
        Story(overtaken),
        Story(failover, before=("a1", "z1")),
        Story(registered),
        Story(cached),
        Story(given_up),
        Story(damaged_and_given_up, before=("s1",)),
        Story(indexed, is_indexed=True),
        Story(damaged, before=("s1",)),
        Story(quarantined_twice, before=("s1",)),
    )
}
