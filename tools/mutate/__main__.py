"""Put faults into modules, one at a time, and report those that no test catches.

    python -m pytest -n auto -p tools.mutate.recorder --mutate-map .mutate tests/store tests/reconcile
    python -m tools.mutate --map .mutate fsdm/store fsdm/reconcile/plan.py
    python -m tools.mutate --map .mutate --draw 60 --seed "$(git rev-parse HEAD)"

`--lines FILE` writes down the lines that the mutants drawn stand on: where pytest's `--mutate-lines FILE` has no others
recorded, that costs the tests nothing.

A survivor is a hole in the tests, or it changes nothing that can be seen: then an entry in `explained.toml` says why.
The exit code is 1 where fewer are caught than `--at-least`, where an entry of that file is wrong, or where a test that
caught a mutant fails without it too. After a change of the package, record the map again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.mutate.explained import read_explained
from tools.mutate.mutants import Mutant, draw, mutants
from tools.mutate.tests_of import RecordedTests
from tools.mutate.trial import Bounds, pick, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tools.mutate.explained import Explained
    from tools.mutate.probes import Lines

MODULES: Final = ("fsdm/store", "fsdm/transfer", "fsdm/reconcile", "fsdm/verify")
EXPLAINED: Final = Path(__file__).with_name("explained.toml")
NOT_RUN, CAUGHT, UNJUDGED, SURVIVED, UNREACHED, EQUIVALENT, WRONG = (
    *("not run", "caught", "out of time", "survived", "reached by no test", "explained as equivalent"),
    "explained as equivalent, and caught",
)


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a mutant, the test that caught it, and how many ran of those that run through it."""

    mutant: Mutant
    end: str
    by: str = ""
    ran: int = 0
    of: int = 0

    def __str__(self) -> str:
        one = self.mutant
        head = f"{self.end}: {one.module}:{one.lines.start} {one.function} ({one.kind})"
        if self.by:
            return f"{head}, by {self.by}"
        return "\n".join((f"{head}, {self.ran} of {self.of} tests", *(f"    {line}" for line in one.diff)))


class Mutations:
    """The trials of mutants of a project, within bounds."""

    def __init__(self, root: Path, tests: RecordedTests, bounds: Bounds, until: float) -> None:
        self._root, self._tests, self._bounds, self._until = root, tests, bounds, until

    def judge(self, mutant: Mutant, explained: Explained | None) -> Result:
        """Try one mutant, unless the time of all is over."""
        tests = self._tests.of(mutant)
        picked = pick(tests, self._tests.seconds, self._bounds.tests_s)
        if time.monotonic() > self._until:
            return Result(mutant, NOT_RUN, of=len(tests))
        if not picked:
            return Result(mutant, UNREACHED if explained is None else EQUIVALENT)
        seen = run(self._root, picked, mutant, self._bounds)
        if explained is not None:
            return Result(mutant, WRONG if seen.caught else EQUIVALENT, seen.by, len(picked), len(tests))
        if seen.caught:
            return Result(mutant, CAUGHT, seen.by or "its end", len(picked), len(tests))
        return Result(mutant, UNJUDGED if seen.late else SURVIVED, "", len(picked), len(tests))

    def fail_anyway(self, tests: Sequence[str]) -> str:
        """Run the tests that caught a mutant, without one; return what is said where one fails."""
        seen = run(self._root, tests, None, self._bounds)
        return seen.said if seen.caught else ""


def sources(paths: Sequence[str], root: Path) -> Iterator[str]:
    """The modules at or below these paths, as paths from the root."""
    for path in paths:
        found = sorted((root / path).rglob("*.py")) if (root / path).is_dir() else [root / path]
        yield from (str(one.relative_to(root)) for one in found)


def lines_of(drawn: Sequence[Mutant]) -> Lines:
    """The lines to record, by module: of a mutant that is there at an import, those of its function or class too."""
    found: dict[str, set[int]] = {}
    for one in drawn:
        found.setdefault(one.module, set()).update(one.lines, one.around if one.at_import else ())
    return {module: sorted(lines) for module, lines in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants that are asked for; return 1 where something is to be done."""
    asked = _parser().parse_args(arguments)
    root = Path(asked.root).resolve()
    explained = read_explained(Path(asked.explained))
    every = [one for name in sources(asked.modules, root) for one in mutants(name, (root / name).read_bytes())]
    drawn = draw(every, asked.draw or len(every), asked.seed)
    if asked.lines is not None:
        Path(asked.lines).write_text(json.dumps(lines_of(drawn)))
        return 0
    bounds = Bounds(asked.tests_s, asked.test_s, asked.all_s)
    tests = RecordedTests(Path(asked.map))
    if not tests.seconds:
        sys.exit(f"{asked.map} has no map: record one with pytest's --mutate-map")
    trials = Mutations(root, tests, bounds, time.monotonic() + asked.minutes * 60)
    print(f"{len(every)} mutants, {len(drawn)} to try, {len(tests.seconds)} tests", flush=True)
    results = []
    with ThreadPoolExecutor(asked.workers) as workers:
        why = [next((one for one in explained if one.matches(mutant)), None) for mutant in drawn]
        for result in workers.map(trials.judge, drawn, why):
            results.append(result)
            if asked.verbose or result.end not in {CAUGHT, EQUIVALENT, NOT_RUN}:
                print(result, flush=True)
    killers = sorted({result.by for result in results if "::" in result.by})
    anyway = trials.fail_anyway(killers) if killers else ""
    wrong = [f"it explains no mutant: {one}" for one in _unmatched(explained, root)]
    return _report(results, anyway, wrong, asked.at_least)


def _unmatched(explained: Sequence[Explained], root: Path) -> list[Explained]:
    made = {
        name: mutants(name, (root / name).read_bytes()) if (root / name).is_file() else []
        for name in {one.module for one in explained}
    }
    return [one for one in explained if not any(map(one.matches, made[one.module]))]


def _report(results: Sequence[Result], anyway: str, wrong: Sequence[str], at_least: float) -> int:
    counts = Counter(result.end for result in results)
    judged = counts[CAUGHT] + counts[SURVIVED] + counts[UNREACHED]
    share = 100 * counts[CAUGHT] / judged if judged else 100.0
    print(*(f"{count} {end}" for end, count in counts.most_common()), f"{share:.1f} % caught", sep=", ")
    for one in wrong:
        print(one)
    if anyway:
        print("a test that caught a mutant fails without one too:", anyway, sep="\n")
    return int(share < at_least or bool(wrong or anyway or counts[WRONG]))


def _parser() -> argparse.ArgumentParser:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__, formatter_class=how)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="PATH", help=f"default: {' '.join(MODULES)}")
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--map", metavar="DIR", help="which test runs through which line")
    either.add_argument("--lines", metavar="FILE", help="try none, but write down the lines of those that are drawn")
    parser.add_argument("--root", default=".", metavar="DIR", help="the project; its copies have the mutants")
    parser.add_argument("--draw", type=int, metavar="N", help="try so many, drawn by the seed (default: all)")
    parser.add_argument("--seed", default="", metavar="TEXT", help="the same text draws the same mutants")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="trials at a time")
    parser.add_argument(
        "--tests-s", type=float, default=20.0, metavar="S", help="tests of a mutant: as many as take this"
    )
    parser.add_argument("--test-s", type=float, default=20.0, metavar="S", help="one test may take this long")
    parser.add_argument(
        "--all-s", type=float, default=60.0, metavar="S", help="all tests of a mutant may take this long"
    )
    parser.add_argument("--minutes", type=float, default=600.0, metavar="M", help="begin no trial after so many")
    parser.add_argument("--at-least", type=float, default=100.0, metavar="PERCENT", help="to be caught of those judged")
    parser.add_argument("--explained", default=EXPLAINED, metavar="FILE", help="the survivors that are equivalent")
    parser.add_argument("--verbose", action="store_true", help="print each result, not only those to look at")
    return parser


if __name__ == "__main__":
    sys.exit(main())
