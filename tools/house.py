"""The house, from the ground up: each floor's rooms, and what each owns. `python -m tools.house`

The floors are those that tests/test_house.py holds the imports to; what a room owns is the first line of its docstring.
"""

from __future__ import annotations

import ast

from tests.test_house import FLOORS, MODULES, PURE


def main() -> None:
    """Print a table."""
    for number, floor in enumerate(FLOORS):
        for room in floor:
            said = (ast.get_docstring(MODULES[room]) or "").splitlines()[0]
            print(f"{number:2d}{', pure' if room in PURE else '':6}  {room:18}  {said}")


if __name__ == "__main__":
    main()
