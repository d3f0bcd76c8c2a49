"""Known faults, the programs that they are put into, and the tests that must find them."""

import importlib
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataChunk
from fsdm.model.errors import WaitTimeoutError
from tests.support.chunks import chunk_dir, entries, put_want
from tests.support.processes import begun
from tests.support.waiting import eventually

IMPATIENCE_S = 4.0  # where what is waited for is not to come
_fault: tuple[str, ...] = ()  # what is put into the programs that are started


@dataclass(frozen=True, slots=True)
class Fault:
    """In the function `where` (`module:Class.name`), `sound` becomes `faulty`; `test`, given `given`, must find it."""

    test: Callable[..., None]
    where: str
    sound: str
    faulty: str
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.where


def with_fault(where: str, sound: str, faulty: str) -> tuple[Any, str, Any]:
    """Return whose a function is, its name, and the function with the fault; it must not call super()."""
    module_name, _, path = where.partition(":")
    owner: Any = (module := importlib.import_module(f"fsdm.{module_name}"))
    *owners, name = path.split(".")
    for one in owners:
        owner = getattr(owner, one)
    text = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    assert text.count(sound) == 1, "the fault cannot be put in any more"
    made: dict[str, Any] = {}
    code = "from __future__ import annotations\n" + text.replace(sound, faulty)
    exec(compile(code, f"<{where}, faulty>", "exec"), module.__dict__, made)
    return owner, name, made[name]


def must_find(fault: Fault, request: pytest.FixtureRequest, put: pytest.MonkeyPatch) -> None:
    """See that the test fails with the fault put in, also into the programs that it starts."""
    slip = fault.where, fault.sound, fault.faulty
    put.setattr(*with_fault(*slip))
    put.setattr(sys.modules[__name__], "_fault", slip)
    put.setattr(sys.modules[fault.test.__module__], "PATIENCE_S", IMPATIENCE_S, raising=False)
    put.setattr(eventually, "__defaults__", ("", IMPATIENCE_S))
    fixtures = inspect.signature(fault.test).parameters.keys() - fault.given.keys()
    given = {name: request.getfixturevalue(name) for name in fixtures}
    with pytest.raises((AssertionError, WaitTimeoutError, RuntimeError)):
        fault.test(**given, **fault.given)


# the fault is put in before anything of the package has been imported by name
PRELUDE = f"""
import importlib, inspect, sys, textwrap
from typing import Any
{inspect.getsource(with_fault)}
PATIENCE_S = 60.0
if sys.argv[2:]:
    setattr(*with_fault(*sys.argv[2:]))
    PATIENCE_S = 4.0
"""


def command(program: str, data_dir: Path) -> list[str]:
    """Make the command of a program on a data directory, with the fault that is to be found."""
    return [sys.executable, "-c", PRELUDE + program, str(data_dir), *_fault]


@contextmanager
def child(program: str, data_dir: Path) -> Iterator[Callable[[str], None]]:
    """A program that does what it is told, line by line, and answers each."""
    with begun(command(program, data_dir), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def tell(what: str) -> None:
            print(what, file=process.stdin, flush=True)
            assert process.stdout.readline().strip() == what

        tell("begin")
        yield tell


def arrive(data_dir: Path, *chunks: DataChunk) -> None:
    """Place wants by hand, and wait until each is answered."""
    for chunk in chunks:
        put_want(data_dir, chunk)
    for chunk in chunks:
        eventually(lambda chunk=chunk: available(data_dir, chunk))


def available(data_dir: Path, chunk: DataChunk) -> bool:
    """Whether the chunk is there, and its want is answered."""
    return (chunk_dir(data_dir, chunk) / "READY").exists() and chunk.id not in entries(data_dir / "want")
