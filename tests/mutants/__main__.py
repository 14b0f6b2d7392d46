"""`python -m mutants [PACKAGE …] [--number N] [--seed S]`: change the code at places drawn by chance; do tests fail?"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from mutants.covered import Covered, measure
from mutants.each import Each
from mutants.places import Mutant, sample
from mutants.trial import Loop, Outcome, Try

PACKAGES = ("quantum", "data", "models", "evaluation", "training", "distill", "study", "cli")


def drawn(tree: Path, package: str, number: int, seed: int) -> list[Mutant]:
    """Return a package's sample; the same for the same code, number and seed."""
    paths = sorted((tree / "src/qvit" / package).rglob("*.py"))
    sources = {str(path.relative_to(tree)): path.read_text() for path in paths}
    return sample(sources, number, Random(f"{seed} {package}"))


def positive(text: str) -> int:
    """Return a number of at least one."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def main() -> int:
    """Try the mutants, print the survivors and how many of each package were caught."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("packages", nargs="*", default=PACKAGES, help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--number", type=positive, default=30, help="how many a package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=positive, default=2, help="how many at once")
    parser.add_argument("--marks", default="", help="only tests that match, as for pytest's -m")
    parser.add_argument("--tree", type=Path, default=Path(), help="another checkout, to compare with")
    parser.add_argument("--folder", type=Path, default=Path("runs/mutants"), help="what is measured is kept there")
    parser.add_argument(
        "--each", action="store_true", help="instead, look for mutants on which each test function fails"
    )
    parser.add_argument("--tries", type=positive, default=12, help="how many of those a function at most")
    parser.add_argument("--measure", action="store_true", help="run all tests under coverage, as is done at first")
    asked = parser.parse_args()
    tree, folder = asked.tree.resolve(), asked.folder.resolve()
    for package in asked.packages:
        if not (tree / "src/qvit" / package).is_dir():
            parser.error(f"There is no package {package!r} in {tree / 'src/qvit'}.")
    if asked.measure or not (folder / "costs").exists():
        measure(tree, folder, asked.jobs)
    covered = Covered(tree, folder)
    if asked.each:
        return each_test(Each(covered, asked.tries, asked.seed), covered, asked)
    mutants = [mutant for package in asked.packages for mutant in drawn(tree, package, asked.number, asked.seed)]
    results = folder / f"results{re.sub(r'[^a-z]+', '-', ' ' + asked.marks if asked.marks else '')}.jsonl"
    done = {name: Outcome(**outcome) for name, outcome in map(json.loads, _lines(results))}
    tries = [Try(mutant, covered.tests(mutant)) for mutant in mutants if mutant.name not in done]

    def told(one: Try, outcome: Outcome) -> None:
        done[one.mutant.name] = outcome
        with results.open("a") as file:
            file.write(json.dumps([one.mutant.name, asdict(outcome)]) + "\n")
        failed = " ".join(outcome.failed[:1])
        print(f"{outcome.how:13} {outcome.seconds:6.1f} s  {one.mutant}  {failed}", file=screen, flush=True)

    screen = os.fdopen(os.dup(1), "w")  # pytest keeps its own output to itself
    if tries:
        files = {test.split("::")[0] for one in tries for test in (*one.tests.here, *one.tests.there)}
        run(Loop(tree, tries, told, costs=covered.costs, jobs=asked.jobs), files, asked.marks)
    print(*table(mutants, done), sep="\n")
    return 0


def each_test(each: Each, covered: Covered, asked: argparse.Namespace) -> int:
    """Look for mutants on which each test function fails, print those without one."""
    screen = os.fdopen(os.dup(1), "w")
    results = asked.folder.resolve() / "results-each.jsonl"
    each.broken |= dict(map(json.loads, _lines(results)))

    def told(one: Try, outcome: Outcome) -> None:
        if outcome.caught:
            each.broken[one.function] = one.mutant.name
            with results.open("a") as file:
                file.write(json.dumps([one.function, one.mutant.name]) + "\n")
        print(f"{outcome.how:13} {outcome.seconds:6.1f} s  {one.function}  {one.mutant}", file=screen, flush=True)

    loop = Loop(covered.tree, each.tries(), told, costs=covered.costs, jobs=asked.jobs, copies=False)
    run(loop, {test.split("::")[0] for test in covered.costs}, asked.marks)
    print(*each.report(), sep="\n")
    return 0


def run(loop: Loop, files: set[str], marks: str) -> None:
    """Run pytest once on these files, with the loop as what it does with their tests."""
    os.chdir(loop.tree)
    sys.path[:0] = [str(loop.tree / "src"), str(loop.tree / "tests")]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    options = ["-q", "-pno:cacheprovider", "-pno:xdist", "-pno:pytest_cov", *(["-m", marks] if marks else [])]
    code = pytest.main([*options, *sorted(files)], plugins=[loop])
    if code not in (0, 5):
        raise SystemExit(f"The tests could not be collected: pytest ended with {int(code)}.")


def table(mutants: list[Mutant], outcomes: dict[str, Outcome]) -> list[str]:
    """Return the survivors, then how many of each package were caught, as lines."""
    lines = ["", "Survivors:"]
    caught, tried = Counter[str](), Counter[str]()
    for mutant in mutants:
        package, outcome = mutant.path.split("/")[2], outcomes[mutant.name]
        tried[package] += 1
        caught[package] += outcome.caught
        if not outcome.caught:
            lines.append(f"  {mutant}  ({outcome.tests} tests)")
    lines.append("")
    lines += [f"{package:12} {caught[package]:4} of {number}" for package, number in tried.items()]
    return [*lines, f"{'all':12} {caught.total():4} of {tried.total()}"]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
