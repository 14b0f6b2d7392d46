"""What a tuning has found, in words: who won, why, what to expect, and what a plain baseline does."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvit.report.tuned import SHOWN, sentences, table_of
from qvit.tune.verdict import Standing, Verdict


def standing(name: str, auc: float, parameters: int = 800, folds: int = 15, **more: Any) -> Standing:
    told: dict[str, Any] = {"low": auc - 0.05, "high": auc + 0.05, "ahead": auc - 0.8, "error": 0.012}
    told |= {"acc": 0.75, "seconds": 2.04, "baseline": False}
    return Standing(name, f"about {name}", parameters, folds, auc, **told | more)


FIRST = standing("defaults", 0.8, 834, ahead=None, error=None)
BEST = standing("draw-7", 0.87, 818)
PLAIN = standing("logistic", 0.85, 101, baseline=True)
VERDICT = Verdict(
    chosen="draw-7",
    best="draw-7",
    first="defaults",
    gain=0.06,
    error=0.012,
    shown=True,
    expected=0.862,
    between=(0.82, 0.9),
    reading=(0.79, 0.93),
    images=156,
    most=1100,
    front=("logistic", "draw-7"),
    baseline=None,
    standings=(BEST, FIRST, standing("draw-1", 0.7, folds=2, low=None, high=None, error=None), PLAIN),
)


def tuned(verdict: Verdict, *, runs: int = 1, test: float = 0.9) -> Any:
    return SimpleNamespace(verdict=verdict, dataset="breastmnist", runs=[None] * runs, test=test, folder=Path("t"))


def test_the_table_has_who_came_furthest_the_first_and_baselines() -> None:
    table = table_of(VERDICT)
    assert table.columns == ["recipe", "what", "parameters", "folds", "AUC", "ahead", "ACC", "seconds"]
    assert table.rows == [
        ["draw-7 ←", "about draw-7", "818", "15", "0.870 [0.820, 0.920]", "+0.070 ± 0.012", "0.750", "2.0"],
        ["defaults", "about defaults", "834", "15", "0.800 [0.750, 0.850]", "–", "0.750", "2.0"],
        ["draw-1", "about draw-1", "800", "2", "0.700", "-0.100", "0.750", "2.0"],
        ["logistic", "about logistic", "101", "15", "0.850 [0.800, 0.900]", "+0.050 ± 0.012", "0.750", "2.0"],
    ]
    assert "tune.json" not in table.caption


def test_many_are_not_all_in_the_table() -> None:
    others = [standing(f"draw-{place}", 0.9 - place / 100) for place in range(8, 8 + SHOWN)]
    failed = replace(standing("draw-99", 0.0, folds=0), failed="diverged")
    table = table_of(replace(VERDICT, standings=(*others, BEST, FIRST, PLAIN, failed)))
    assert [row[0] for row in table.rows] == [*(one.name for one in others), "draw-7 ←", "defaults", "logistic"]
    assert table.caption.endswith("see below. 1 could not be trained.")
    more = [standing(f"more-{place}", 0.5) for place in range(3)]
    table = table_of(replace(VERDICT, standings=(*others, BEST, FIRST, *more, PLAIN)))
    assert table.caption.endswith("see below. 3 more are in tune.json.")


GAIN = "+0.060 ± 0.012, with what chance adds to the best of many taken off"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, f"draw-7 won: it is ahead of defaults by {GAIN}: which is shown."),
        (
            {"shown": False},
            f"draw-7 won: it is ahead of defaults by {GAIN}: more than a standard error, but less than two: likely, "
            "and not shown.",
        ),
        (
            {"chosen": "defaults"},
            f"defaults won: the best of the others, draw-7, is ahead by {GAIN}. That is no more than noise.",
        ),
        ({"chosen": "defaults", "best": "defaults"}, "defaults won: no other recipe has a better mean."),
        (
            {"most": 820},
            f"draw-7 is the best of at most 820 parameters; defaults has 834. The difference: {GAIN}.",
        ),
    ],
)
def test_it_is_said_who_won_and_by_how_much(changes: dict[str, Any], told: str) -> None:
    assert sentences(tuned(replace(VERDICT, **changes)))[0] == told


def test_it_is_said_what_to_expect_and_what_came() -> None:
    assert sentences(tuned(VERDICT))[1:] == [
        "Expect an AUC of 0.862 [0.820, 0.900] on new images like those of breastmnist; 0.870 over folds is what "
        "chance helped.",
        "One reading of 156 test images should fall between 0.790 and 0.930, in 19 of 20 cases. It is 0.900.",
    ]
    several = sentences(tuned(replace(VERDICT, chosen="defaults", baseline="logistic"), runs=5))
    assert several[1:] == [
        "Expect an AUC of 0.862 [0.820, 0.900] on new images like those of breastmnist.",
        "One reading of 156 test images should fall between 0.790 and 0.930, in 19 of 20 cases. It is 0.900, the mean "
        "of 5 seeds.",
        "A plain baseline is ahead: logistic (101 numbers) has 0.850 over the same folds.",
    ]
