"""Mutants are one change each, at places that can be wrong, and the same for the same seed."""

import difflib
from functools import cache
from random import Random

import pytest

from mutants.places import Mutant, Places, sample

SOURCE = '''"""A module."""
from math import pi

__all__ = ["half"]
LIMIT: int = 3


@noted(1)
def half(x: "a string", y: int = 2) -> float:
    """Return a half."""
    if x > LIMIT:
        raise ValueError(f"At most {LIMIT}, got {x}.")
    return x / y
'''


@cache
def every(source: str) -> list[Mutant]:
    places = Places("a.py", source)
    found = {}
    for place in range(len(places)):
        for seed in range(20):
            mutant = places.mutant(place, Random(seed))
            if mutant is not None:
                found[mutant.name] = mutant
    return list(found.values())


@pytest.mark.long
def test_what_can_be_wrong_is_changed() -> None:
    changes = {(mutant.line, mutant.before, mutant.after) for mutant in every(SOURCE)}
    assert changes >= {
        (5, "3", "4"),
        (9, "2", "3"),
        (11, "> LIMIT", ">= LIMIT"),
        (12, "At most", "XXAt most XX"),
        (13, "x / y", "x * y"),
        (13, "return x / y", "return None"),
        (12, 'raise ValueError(f"At most {LIMIT}, got {x}.")', "pass"),
    }


@pytest.mark.parametrize("line", [1, 2, 4, 8, 10])
def test_what_cannot_be_wrong_is_left_alone(line: int) -> None:
    """Docstrings, imports, `__all__`, decorators."""
    assert [mutant for mutant in every(SOURCE) if mutant.line == line] == []


def test_annotations_are_left_alone() -> None:
    assert {mutant.before for mutant in every(SOURCE) if mutant.line == 9} == {"2"}


def test_a_mutant_is_one_change() -> None:
    for mutant in every(SOURCE):
        changed = [line for line in difflib.ndiff(SOURCE.splitlines(), mutant.source.splitlines()) if line[0] in "+-"]
        assert len(changed) == 2, mutant
        compile(mutant.source, "a.py", "exec")


def test_places_know_their_statement_and_whether_they_are_in_a_function() -> None:
    found = {(mutant.line, mutant.first, mutant.called) for mutant in every(SOURCE)}
    assert found == {(5, 5, False), (9, 9, False), (11, 11, True), (12, 12, True), (13, 13, True)}


@pytest.mark.long
def test_a_sample_is_of_different_places_and_the_same_for_a_seed() -> None:
    sources = {"b.py": SOURCE, "a.py": SOURCE}
    drawn = [mutant.name for mutant in sample(sources, 8, Random("0 a"))]
    assert len(set(drawn)) == 8
    assert [mutant.name for mutant in sample(dict(reversed(sources.items())), 8, Random("0 a"))] == drawn
    assert [mutant.name for mutant in sample(sources, 8, Random("1 a"))] != drawn
    assert len(sample(sources, 1000, Random("0 a"))) == len(Places("a.py", SOURCE)) * 2
