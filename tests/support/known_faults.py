"""Known faults, the programs that they are put into, and the tests that must find them."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fsdm.model.errors import WaitTimeoutError
from tests.support.chunks import chunk_dir, entries
from tests.support.slips import Slip
from tests.support.waiting import eventually

IMPATIENCE_S = 4.0  # where what is waited for is not to come
PRELUDE = """
import sys
from tests.support.slips import Slip
PATIENCE_S = 60.0
if sys.argv[2:]:
    Slip(*sys.argv[2:]).put_for_good()
    PATIENCE_S = 4.0
"""
_slip: tuple[str, ...] = ()  # what is put into the programs that are started


@dataclass(frozen=True, slots=True)
class Fault:
    """`test`, called with `given` and its fixtures, must find the slip."""

    name: str
    slip: Slip
    test: Callable[..., None]
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


def must_find(fault: Fault, request: pytest.FixtureRequest, put: pytest.MonkeyPatch) -> None:
    """See that the test fails with the fault put in, also into the programs that it starts."""
    fault.slip.put(put)
    put.setattr(sys.modules[__name__], "_slip", (fault.slip.where, fault.slip.sound, fault.slip.faulty))
    put.setattr(sys.modules[fault.test.__module__], "PATIENCE_S", IMPATIENCE_S, raising=False)
    put.setattr(eventually, "__defaults__", ("", IMPATIENCE_S))
    fixtures = inspect.signature(fault.test).parameters.keys() - fault.given.keys()
    given = {name: request.getfixturevalue(name) for name in fixtures}
    with pytest.raises((AssertionError, WaitTimeoutError, RuntimeError)):
        fault.test(**given, **fault.given)


def command(program: str, data_dir: Path) -> list[str]:
    """Make the command of a program on a data directory, with the fault that is to be found."""
    return [sys.executable, "-c", PRELUDE + program, str(data_dir), *_slip]


@contextmanager
def child(program: str, data_dir: Path) -> Iterator[Callable[[str], None]]:
    """A program that does what it is told, line by line, and answers each."""
    process = subprocess.Popen(
        command(program, data_dir),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def tell(what: str) -> None:
        print(what, file=process.stdin, flush=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == what

    try:
        tell("begin")
        yield tell
    finally:
        process.kill()
        process.communicate()


def available(data_dir: Path, chunk: Any) -> bool:
    """Whether the chunk is there, and its want is answered."""
    return (chunk_dir(data_dir, chunk) / "READY").exists() and chunk.id not in entries(data_dir / "want")
