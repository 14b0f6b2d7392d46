"""From a tree with a planted hole in its tests to the survivors: measured, drawn, tried, told."""

import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from mutants.places import Mutant, Places
from mutants.swap import functions, swap

SUMS = '''"""Sums."""

LIMIT = 10


def bounded(x, y):
    """Return a sum, at most the limit."""
    total = x + y
    if total > LIMIT:
        raise ValueError(f"At most {LIMIT}.")
    return total


def unseen(x):
    """Return the next number."""
    return x + 1
'''
TESTS = """import pytest

from qvit.toy.sums import bounded


def test_a_sum():
    assert bounded(2, 3) == 5
    assert bounded(5, 5) == 10


def test_the_limit():
    with pytest.raises(ValueError):
        bounded(5, 6)


def test_what_cannot_fail():
    try:
        assert bounded(1, 2) == 3
    except Exception:
        pass


def test_that_fails_as_it_is():
    assert bounded(1, 1) == 3


def test_of_nothing():
    assert True
"""


def mutants(path: str) -> dict[tuple[int, str], Mutant]:
    places = Places(path, SUMS)
    made = [places.mutant(place, Random(seed)) for place in range(len(places)) for seed in range(10)]
    return {(mutant.line, mutant.after): mutant for mutant in made if mutant}


@pytest.mark.long
def test_functions_take_on_a_mutant_and_constants_do_not(tmp_path: Path) -> None:
    path = tmp_path / "sums.py"
    path.write_text(SUMS)
    spec = importlib.util.spec_from_file_location("sums", path)
    assert spec is not None
    assert spec.loader is not None
    sums = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sums)
    functions.cache_clear()
    gc.freeze()  # as when all tests are collected
    found = mutants("sums.py")
    assert swap(tmp_path, found[3, "11"]) == 0
    assert swap(tmp_path, found[8, "x - y"]) == 1
    assert (sums.bounded(5, 3), sums.unseen(1)) == (2, 2)


@pytest.mark.processes
@pytest.mark.slow("runs pytest five times: to measure, in forks twice, on a copy")
def test_survivors_are_the_holes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name, text in {
        "pyproject.toml": "[tool.pytest.ini_options]\ntestpaths = ['tests']\naddopts = '--import-mode=importlib'\n",
        "src/qvit/__init__.py": "",
        "src/qvit/toy/__init__.py": "",
        "src/qvit/toy/sums.py": SUMS,
        "tests/toy/test_sums.py": TESTS,
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "mutants", "toy", "--tree", tree, "--folder", tmp_path / "measured", *options]
        path = {"PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.run(command, env=os.environ | path, capture_output=True, text=True, check=True).stdout

    told = run("--number", "100")
    how: dict[str, set[str]] = {}
    for name, outcome in map(json.loads, (tmp_path / "measured/results.jsonl").read_text().splitlines()):
        assert not any("as_it_is" in test for test in outcome["failed"])
        how.setdefault(name.split(":")[1], set()).add(outcome["how"])
    assert how["8"] == {"failed"}  # the sum
    assert "failed" in how["9"]  # the condition
    assert "failed" in how["3"]  # the limit, on a copy of the tree
    assert "survived" in how["10"]  # the message
    assert how["16"] == {"not run"}
    survivors = told.partition("Survivors:")[2]
    assert "sums.py:10:" in survivors
    assert "sums.py:16:" in survivors
    assert "sums.py:8:" not in survivors
    told = run("--each", "--tries", "30")
    found = map(json.loads, (tmp_path / "measured/results-each.jsonl").read_text().splitlines())
    assert sorted(function for function, _ in found) == [
        "tests/toy/test_sums.py::test_a_sum",
        "tests/toy/test_sums.py::test_the_limit",
    ]
    assert told.splitlines()[-8:] == [
        "Not broken by any mutant tried:",
        "  tests/toy/test_sums.py::test_what_cannot_fail",
        "  tests/toy/test_sums.py::test_that_fails_as_it_is",
        "",
        "Run none of the code in their own process:",
        "  tests/toy/test_sums.py::test_of_nothing",
        "",
        "2 of 5 test functions fail on a mutant",
    ]
