"""The states that a power failure may leave a directory in, from the calls that changed it.

The method is that of ALICE (OSDI '14).

`Disk` follows the calls. What fsync has covered is there for good. Of the rest, any part may have reached the disk:

- each change of a directory's entries (create, mkdir, rename, link, unlink, rmdir), in any order, each of them whole: a
  rename moves its name or does not, and is there for good once both of its directories are fsynced;
- of a file, its bytes as they were fsynced last, and of what was written since: all, nothing, the size without the
  bytes (zeros), the first half, all but the first write (a hole), all but the last.

So the fsync of a file does not bring its name, nor that of a directory its own. Modes and times are as they were last.

Covered: all combinations, where there are no more than `bound` of them. Else: of the entries that are pending, all
prefixes of their order, all single ones left out or alone, all pairs left out (if those are no more than `bound`), each
of those with all bytes, with none, and with zeros; and the prefixes with each file by itself in each of its forms.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import combinations, product
from math import comb, prod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.crash.tap import Call

JUDGED: Final = ".judged-"  # … INODE_MTIME_SIZE_ID: such a name says an inode's number


@dataclass(eq=False, slots=True)
class Node:
    """A file or a directory; `fsynced` and `since` are a file's bytes, and the calls after them."""

    ino: int
    is_dir: bool
    mtime_ns: int = 0
    fsynced: bytes = b""
    since: list[tuple[int, Call]] = field(default_factory=list)
    known: list[bytes] | None = None

    def forms(self) -> list[bytes]:
        """Return what this file may have after a power failure; first what it has now."""
        if self.known is None:
            self.known = self._forms()
        return self.known

    def _forms(self) -> list[bytes]:
        calls = [call for _, call in self.since]
        forms = [_written(self.fsynced, calls), self.fsynced]
        if calls:
            forms.append(_written(self.fsynced, calls, zeros=True))
            forms.append(forms[0][: len(forms[0]) // 2])
        if len(calls) > 1:
            forms += [_written(self.fsynced, calls[1:]), _written(self.fsynced, calls[:-1])]
        return list(dict.fromkeys(forms))


def _written(data: bytes, calls: list[Call], *, zeros: bool = False) -> bytes:
    content = bytearray(data)
    for call in calls:
        end = call.offset + len(call.data)
        content.extend(bytes(max(end - len(content), 0)))
        if call.kind == "truncate":
            del content[call.offset :]
        else:
            content[call.offset : end] = bytes(len(call.data)) if zeros else call.data
    return bytes(content)


@dataclass(eq=False, slots=True)
class Change:
    """A change of entries by the call of this number: (directory, name, what stands there then)."""

    number: int
    call: Call
    entries: tuple[tuple[Node, str, Node | None], ...]
    pending: set[Node]  # directories that are not fsynced since

    @property
    def durable(self) -> bool:
        return not self.pending


Table = dict[Node, dict[str, Node]]


class Shape:
    """The names of a state: where some changes of entries are lost, and each file has what was written last.

    Directories come before what is in them. `changed` is when a node was changed last, by the number of the call.
    """

    def __init__(self, names: list[tuple[str, Node]], changed: dict[Node, int], lost: list[Change]) -> None:
        self.changed, self.lost = changed, lost
        self.tree = [(path, node, b"" if node.is_dir else node.forms()[0]) for path, node in names]
        self.seen = [_seen(path, data) for path, _, data in self.tree]
        self.places: dict[Node, list[int]] = {}
        for place, (_, node) in enumerate(names):
            self.places.setdefault(node, []).append(place)
        markers = [node for path, node in names if path.split("/")[1:2] in (["want"], ["delete"])]
        self.order = tuple(markers.index(node) for node in sorted(markers, key=lambda node: self.changed.get(node, -1)))


@dataclass(frozen=True, slots=True)
class State:
    """A state after a power failure: a shape, and what some of its files have instead of what was written last."""

    shape: Shape
    forms: dict[Node, bytes]

    @property
    def tree(self) -> list[tuple[str, Node, bytes]]:
        """The path, the node and the bytes of all that is there."""
        return [(path, node, self.forms.get(node, data)) for path, node, data in self.shape.tree]

    @property
    def lost(self) -> list[str]:
        """What was lost, in words."""
        texts = [str(change.call) for change in self.shape.lost]
        of_less = [(path, data) for path, node, data in self.tree if node in self.forms and data != node.forms()[0]]
        return texts + [f"{path} has {len(data)} bytes" for path, data in of_less]

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for states that recover alike."""
        seen = self.shape.seen
        if self.forms:
            seen = seen.copy()
            for node, data in self.forms.items():
                for place in self.shape.places.get(node, ()):
                    seen[place] = _seen(self.shape.tree[place][0], data)
        return (*dict.fromkeys(seen), *self.shape.order)

    def build(self, root: str) -> dict[int, int]:
        """Make the state in an empty directory; return for each inode when it was changed last."""
        made: dict[Node, str] = {}
        for path, node, data in self.tree:
            if node.is_dir:
                os.mkdir(f"{root}/{path}")
                continue
            new = f"{root}/new"
            if node in made:
                os.link(made[node], new)
            else:
                with open(new, "wb") as file:
                    file.write(data)
                os.utime(new, ns=(node.mtime_ns, node.mtime_ns))
            directory, name = os.path.split(f"{root}/{path}")
            if name.startswith(JUDGED):
                ino, _, rest = name.removeprefix(JUDGED).partition("_")
                name = f"{JUDGED}{os.stat(new).st_ino if int(ino) == node.ino else 0}_{rest}"
            made[node] = f"{directory}/{name}"
            os.rename(new, made[node])
        return {os.stat(path).st_ino: self.shape.changed.get(node, -1) for node, path in made.items()}


def _seen(path: str, data: bytes) -> tuple[str, bytes]:
    """Return what makes a difference: trash is erased whatever it is, torn is torn, and nobody reads who had LOCK."""
    directory, _, name = path.rpartition("/")
    if "/trash/" in path:
        return "data/trash/.", b""
    if name.startswith(".") and not name.startswith(JUDGED):
        return f"{directory}/.", b""
    if name == "LOCK":
        return path, b""
    return path, data if "/want/" not in path or data.endswith(b"}\n") else b""


class Disk:
    """A directory that follows the calls. What is there at the beginning is there for good."""

    def __init__(self, root: str) -> None:
        self._root = Node(0, is_dir=True)
        self._nodes: dict[int, Node] = {os.stat(root).st_ino: self._root}
        self._now: Table = {self._root: {}}
        self._load(root, self._root)
        self._base: Table = {node: dict(entries) for node, entries in self._now.items()}
        self._changes: list[Change] = []  # since `_base`, in their order
        self._number = 0
        self._shapes: dict[frozenset[Change], Shape] = {}  # of this instant

    def _load(self, path: str, directory: Node) -> None:
        for entry in os.scandir(path):
            found = entry.stat(follow_symlinks=False)
            node = Node(found.st_ino, is_dir=entry.is_dir(), mtime_ns=found.st_mtime_ns)
            self._nodes[node.ino] = self._now[directory][entry.name] = node
            if node.is_dir:
                self._now[node] = {}
                self._load(entry.path, node)
            else:
                with open(entry.path, "rb") as file:
                    node.fsynced = file.read()

    # ------------------------------------------------------------------------------------------------ what was called

    def did(self, call: Call) -> None:
        """Follow a call that was made."""
        self._number += 1
        self._shapes.clear()
        match call.kind:
            case "create" | "mkdir":
                node = Node(call.ino, is_dir=call.kind == "mkdir", mtime_ns=call.mtime_ns)
                self._nodes[call.ino] = node
                if node.is_dir:
                    self._now[node] = self._base[node] = {}
                    self._base[node] = {}
                self._change(call, (*self._parent(call.path), node))
            case "rename":
                source, target = self._parent(call.path), self._parent(call.target)
                self._change(call, (*source, None), (*target, self._at(call.path)))
            case "link":
                self._change(call, (*self._parent(call.target), self._at(call.path)))
            case "unlink" | "rmdir":
                self._change(call, (*self._parent(call.path), None))
            case "write" | "truncate":
                node = self._nodes[call.ino]
                node.since.append((self._number, call))
                node.known = None
                node.mtime_ns = call.mtime_ns
            case "utime":
                node = self._nodes[call.ino]
                node.mtime_ns = call.mtime_ns
            case "sync":
                for node in self._nodes.values():
                    self._fsync(node)
            case "fsync":
                self._fsync(self._nodes[call.ino])
            case _:
                raise NotImplementedError(str(call))

    def _change(self, call: Call, *entries: tuple[Node, str, Node | None]) -> None:
        change = Change(self._number, call, entries, {directory for directory, _, _ in entries})
        self._changes.append(change)
        _apply(self._now, change)

    def _fsync(self, node: Node) -> None:
        node.fsynced = _written(node.fsynced, [call for _, call in node.since])
        node.since.clear()
        node.known = None
        for change in self._changes:
            change.pending.discard(node)
        while self._changes and self._changes[0].durable:
            _apply(self._base, self._changes.pop(0))

    def _at(self, path: str) -> Node:
        node = self._root
        for name in path.split("/"):
            node = self._now[node][name]
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        directory, _, name = path.rpartition("/")
        return (self._at(directory) if directory else self._root), name

    def is_durable(self, path: str) -> bool:
        """Tell whether what stands there now cannot be lost."""
        try:
            node = self._at(path)
        except KeyError:
            return False
        pending = (change for change in self._changes if not change.durable)
        return not node.since and all(node is not entry[2] for change in pending for entry in change.entries)

    # ------------------------------------------------------------------------------------------------- what may be left

    def now(self) -> State:
        """Return the state while the power is on."""
        return self._state(frozenset(), {})

    def states(self, bound: int) -> Iterator[State]:
        """Yield the states that a power failure may leave now; some may be alike."""
        pending = [change for change in self._changes if not change.durable]
        files = {node: forms for node in self._relevant(pending) if len(forms := node.forms()) > 1}
        if 2 ** len(pending) * prod(map(len, files.values())) <= bound:
            for lost in _subsets(pending):
                for chosen in product(*files.values()):
                    yield self._state(lost, dict(zip(files, chosen, strict=True)))
            return
        prefixes = [frozenset(pending[i:]) for i in range(len(pending) + 1)]
        for lost in prefixes:
            for node, forms in files.items():
                for form in forms[1:]:
                    yield self._state(lost, {node: form})
        for lost in _subsets(pending) if 2 ** len(pending) <= bound else (*prefixes, *_some(pending, bound)):
            yield self._state(lost, {})
            yield self._state(lost, {node: node.fsynced for node in files})
            yield self._state(lost, {node: forms[min(2, len(forms) - 1)] for node, forms in files.items()})

    def _relevant(self, pending: list[Change]) -> list[Node]:
        """Return the files that some state shows."""
        named = [node for change in pending for _, _, node in change.entries if node is not None]
        shown = [node for _, node, _ in self._state(frozenset(), {}).tree]
        shown += [node for _, node, _ in self._state(frozenset(pending), {}).tree]
        return [node for node in dict.fromkeys(shown + named) if not node.is_dir]

    def _state(self, lost: frozenset[Change], forms: dict[Node, bytes]) -> State:
        shape = self._shapes.get(lost)
        if shape is None:
            shape = self._shapes[lost] = self._shape(lost)
        return State(shape, forms)

    def _shape(self, lost: frozenset[Change]) -> Shape:
        table = {node: dict(entries) for node, entries in self._base.items()}
        changed = {node: node.since[-1][0] for node in self._nodes.values() if node.since}
        for change in self._changes:
            if change not in lost:
                _apply(table, change)
                for _, _, node in change.entries:
                    if node is not None:
                        changed[node] = max(changed.get(node, -1), change.number)
        names: list[tuple[str, Node]] = []
        stack = [("", self._root)]
        while stack:
            path, directory = stack.pop()
            for name, node in sorted(table[directory].items(), key=lambda entry: entry[0]):
                inner = f"{path}/{name}" if path else name
                names.append((inner, node))
                if node.is_dir:
                    stack.append((inner, node))
        return Shape(names, changed, [change for change in self._changes if change in lost])


def _apply(table: Table, change: Change) -> None:
    for directory, name, node in change.entries:
        if node is None:
            table[directory].pop(name, None)
        else:
            table[directory][name] = node


def _subsets(pending: list[Change]) -> Iterator[frozenset[Change]]:
    for size in range(len(pending) + 1):
        yield from map(frozenset, combinations(pending, size))


def _some(pending: list[Change], bound: int) -> Iterator[frozenset[Change]]:
    everything = frozenset(pending)
    for change in pending:
        yield frozenset([change])
        yield everything - {change}
    if comb(len(pending), 2) <= bound:
        yield from map(frozenset, combinations(pending, 2))
