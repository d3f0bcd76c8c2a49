"""The tests themselves: none compares durations, none sleeps, and each asserts something."""

import ast

import pytest

from tests.support.scrutiny import faults, faults_of_all, modules

GOOD = """\
def test_it():
    check(1)
    assert wait(time.monotonic() + 3) == []
    assert helper(other) is not None
def check(x):
    assert x
"""


def test_no_test_has_a_fault() -> None:
    assert list(faults_of_all(modules())) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, []),
        ("def test_it(): pass", ["line 1: test_it asserts nothing"]),
        ("def check(): assert x\ndef test_it(): check()", []),
        ("def test_it(): eventually(it)", ["line 1: test_it asserts nothing"]),
        ("from tests.support import eventually\ndef test_it(): eventually(it)", []),
        ("from tests.support.chunks import bring\ndef test_it(): bring(it)", ["line 2: test_it asserts nothing"]),
        ("def test_it(eventually): pass", []),
        ("def test_it():\n    with pytest.raises(ValueError): it()", []),
        ("class Bench:\n    def sees(self): assert x\ndef test_it(): Bench().sees()", []),
        ("def test_it():\n    assert time.monotonic() < 3", ["line 2: test_it asserts by a clock"]),
        ("def test_it():\n    at = time.time_ns()\n    assert it() < at", ["line 3: test_it asserts by a clock"]),
        (
            "def test_it():\n    at = 1 + time.time()\n    assert abs(at - it()) < 1",
            ["line 3: test_it asserts by a clock"],
        ),
        (
            "def test_it():\n    assert (datetime.now(UTC) - x).total_seconds() < 1",
            ["line 2: test_it asserts by a clock"],
        ),
        ("def help(): time.sleep(1)", ["line 1: sleeps"]),
        ("from time import sleep", ["line 1: imports sleep"]),
        ("def help(clock): clock.sleep(1)", []),
    ],
)
def test_fault_is_found(text: str, found: list[str]) -> None:
    assert faults(ast.parse(text), {"eventually", "bring"}) == found
