"""A known fault, put on purpose into one function of the package: some of its text is replaced."""

import importlib
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True, slots=True)
class Slip:
    """A change of the function at `where` (`module:Class.name`): `sound` becomes `faulty`.

    The function must not call super().
    """

    where: str
    sound: str
    faulty: str

    def put(self, put: pytest.MonkeyPatch) -> None:
        """Until the test is over."""
        put.setattr(*self._made())

    def put_for_good(self) -> None:
        """In a process that has nothing else to do."""
        setattr(*self._made())

    def _made(self) -> tuple[Any, str, Any]:
        """Whose the function is, its name, and the faulty one."""
        module_name, _, path = self.where.partition(":")
        module = importlib.import_module(module_name)
        *owners, name = path.split(".")
        owner: Any = module
        for one in owners:
            owner = getattr(owner, one)
        text = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        assert text.count(self.sound) == 1, "the fault cannot be put in any more"
        made: dict[str, Any] = {}
        code = "from __future__ import annotations\n" + text.replace(self.sound, self.faulty)
        exec(compile(code, f"<{self.where}, faulty>", "exec"), module.__dict__, made)
        return owner, name, made[name]
