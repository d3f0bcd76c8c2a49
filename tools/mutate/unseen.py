"""Places where a change is no fault, or none that a test could tell: no mutant is made of them.

Besides annotations, decorators, docstrings and the texts of messages, these are:

- what is logged, and the text of `__repr__`: nothing is to depend on them;
- assertions (`assert`, `zip(…, strict=True)`): where the code is right, a weaker one passes as well;
- sleeps: only a clock tells one from another or from none, and no test asks a clock;
- a figure that has a name with a unit (`LOOK_S: Final = 0.04`, `timeout_s: float = 5.0`): another one is another
  choice, and tests take it by its name;
- the order of two values that are made beside each other: a class that is called, and what the language itself
  calculates, do nothing else.
"""

from __future__ import annotations

import ast
from typing import Final

UNITS: Final = ("_s", "_ms", "_ns", "_bytes", "_bytes_per_s")
CALCULATE: Final = {
    *("bool", "bytes", "bytearray", "dict", "float", "frozenset", "getattr", "hasattr", "int", "isinstance", "iter"),
    *(
        "len",
        "list",
        "map",
        "max",
        "memoryview",
        "min",
        "range",
        "round",
        "set",
        "sorted",
        "str",
        "sum",
        "tuple",
        "zip",
    ),
}


def is_unseen(node: ast.AST) -> bool:
    """Tell whether a statement, or an argument of a call, is to stay as it is."""
    match node:
        case ast.FunctionDef(name="__repr__") | ast.Assert() | ast.keyword(arg="strict"):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr=name))):
            return name == "sleep" or _name(owner) == "logger"
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            return is_figure(_name(target), value)
        case _:
            return False


def is_figure(name: str, value: ast.expr) -> bool:
    """Tell whether that is a number other than 0, with a unit in its name."""
    match value:
        case ast.Constant(value=int() | float() as number):
            return name.lower().endswith(UNITS) and not isinstance(number, bool) and number != 0
        case ast.BinOp(left=left, right=right):
            return is_figure(name, left) and is_figure(name, right)
        case _:
            return False


def acts(node: ast.AST) -> bool:
    """Tell whether that is a call that may do more than make a value."""
    return isinstance(node, ast.Call) and (name := _name(node.func)) not in CALCULATE and not name[:1].isupper()


def _name(node: ast.expr) -> str:
    """The last part of a dotted name; an empty text for any other expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
