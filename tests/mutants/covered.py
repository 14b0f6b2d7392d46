"""Which tests run a line, and how long they take: one run of all tests under coverage.py, kept."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coverage import CoverageData

from mutants.places import Mutant

QUICK = 0.3  # seconds; quicker tests are tried first

Run = tuple[str, bool]  # a test, "" for an import, and whether it is in a process that the test starts

_SETTINGS = """
[run]
source = {tree}/src
data_file = {folder}/coverage
context = ${{PYTEST_CURRENT_TEST-}}
parallel = true
patch = subprocess
"""


def measure(tree: Path, folder: Path, jobs: int, tests: Sequence[str] = ()) -> None:
    """Run all tests of a tree once and keep, in a folder, which lines each runs and how long it takes.

    Processes that tests start are followed, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("coverage*"), *folder.glob("results*.jsonl"), folder / "costs"):  # of other tests
        old.unlink(missing_ok=True)
    settings = folder / "settings"
    settings.write_text(_SETTINGS.format(tree=tree, folder=folder))
    here = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tree / "src", tree / "tests", here)))
    watched = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m"]
    command = ["pytest", "-n", str(jobs), "-p", "mutants.plugin", f"--costs={folder / 'costs'}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # of a test of ours
    ended = subprocess.run([*watched, *command, *tests], cwd=tree, env=own | {"PYTHONPATH": path}, check=False)
    if ended.returncode not in (0, 1):  # tests that fail as it is are left out later
        raise SystemExit(f"The tests could not be run: pytest ended with {ended.returncode}.")
    subprocess.run([*watched[:3], "combine", "-q", f"--rcfile={settings}", str(folder)], cwd=tree, check=True)


@dataclass(frozen=True)
class Tests:
    """Tests to try a mutant on: those that run it in their own process, and those that need it on disk."""

    here: list[str]
    there: list[str]


class Covered:
    """What `measure` found."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree = tree
        self.costs: dict[str, float] = json.loads((folder / "costs").read_text())
        self._data = CoverageData(str(folder / "coverage"))
        self._data.read()
        self._lines: dict[str, dict[int, set[Run]]] = {}

    def tests(self, mutant: Mutant) -> Tests:
        """Return the tests that run a mutant's statement, those first which are likely to tell soonest.

        What is run by the import alone, or compiled by Numba, is not seen by line: there it is the tests that run
        anything of the module, or of the nearest that import it.
        """
        path, near = mutant.path, mutant.path.split("/")[2]
        if mutant.called and path not in self.compiled:
            lines = self.lines(path)
            runs = set().union(*(lines.get(line, set()) for line in range(mutant.first, mutant.line + 1)))
            here = {test for test, elsewhere in runs if test and not elsewhere}
            there = {test for test, elsewhere in runs if test and elsewhere}
            if ("", False) in runs:  # by an import, too
                there |= here or self._of_module(path)
            return Tests(self.ordered(here, near), self.ordered(there, near))
        found: set[str] = set() if path in self.compiled else self._of_module(path)
        users = seen = {path}
        while not found and users:
            users = {other for user in users for other in self._importers(user)} - seen
            seen = seen | users
            found = set().union(*map(self._of_module, users))
        return Tests([], self.ordered(found, near))

    def ordered(self, tests: Iterable[str], near: str) -> list[str]:
        """Return tests in the order to try them in: quick ones of the same package, quick ones, then the rest."""
        tests = [test for test in tests if test in self.costs]
        order = {test: place for place, test in enumerate(self.costs)}
        of_file: dict[str, float] = {}
        for test in tests:
            file = test.split("::")[0]
            of_file[file] = of_file.get(file, 0) + self.costs[test]

        def key(test: str) -> tuple[object, ...]:
            file, far = test.split("::")[0], not test.startswith(f"tests/{near}/")
            if self.costs[test] < QUICK:
                return (0, far, of_file[file], file, order[test])
            return (1, far, self.costs[test])

        return sorted(tests, key=key)

    def lines(self, path: str) -> dict[int, set[Run]]:
        """Return what runs each line of a file."""
        if path not in self._lines:
            contexts = self._data.contexts_by_lineno(str(self.tree / path))
            self._lines[path] = {line: {_run(name) for name in names} for line, names in contexts.items()}
        return self._lines[path]

    def _of_module(self, path: str) -> set[str]:
        return {test for runs in self.lines(path).values() for test, _ in runs if test}

    @cached_property
    def compiled(self) -> set[str]:
        """The files of the code with parts that Numba compiles."""
        compiled = re.compile(r"^@(jit|intrinsic)", re.MULTILINE)
        modules = (self.tree / "src").rglob("*.py")
        return {str(path.relative_to(self.tree)) for path in modules if compiled.search(path.read_text())}

    def _importers(self, path: str) -> list[str]:
        module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        package, _, name = module.rpartition(".")
        pattern = re.compile(rf"(from|import) {re.escape(module)}\b|from {re.escape(package)} import .*\b{name}\b")
        modules = (self.tree / "src").rglob("*.py")
        return [str(other.relative_to(self.tree)) for other in modules if pattern.search(other.read_text())]


def _run(context: str) -> Run:
    """Return what a context of coverage.py says: a test, or `test (phase)` in processes that it starts."""
    found = re.fullmatch(r"(.*) \((setup|call|teardown)\)", context)
    return (found[1], True) if found else (context, False)
