"""What a tuning has found, in a table and in sentences."""

from qvit.data.registry import name_of
from qvit.report.compare import Table
from qvit.report.formats import MISSING
from qvit.tune.tuned import Tuned
from qvit.tune.verdict import Standing, Verdict

COLUMNS = ["recipe", "what", "parameters", "folds", "AUC", "ahead", "ACC", "seconds"]
SHOWN = 12  # candidates, besides the first, the chosen one and baselines
CAPTION = (
    "AUC and ACC: means over folds held out of training and validation images, AUC with a 95 % interval; ahead: mean "
    "lead on the same folds, ± its standard error. These allow for training images that folds share, and not for the "
    "choice of the best of many: see below."
)


def table_of(verdict: Verdict) -> Table:
    """Return the candidates that came furthest, the first one, and plain baselines."""
    kept = [one for one in verdict.standings if not one.baseline and one.failed is None][:SHOWN]
    for name in (verdict.chosen, verdict.first):
        if verdict.of(name) not in kept:
            kept.append(verdict.of(name))
    others = sum(not one.baseline and one.failed is None for one in verdict.standings) - len(kept)
    kept += [one for one in verdict.standings if one.baseline and one.failed is None]
    failed = sum(one.failed is not None for one in verdict.standings)
    told = [f"{others} more are in tune.json."] if others > 0 else []
    told += [f"{failed} could not be trained."] if failed else []
    return Table("Recipes", COLUMNS, [_cells(one, verdict) for one in kept], " ".join([CAPTION, *told]))


def _cells(one: Standing, verdict: Verdict) -> list[str]:
    mark = " ←" if one.name == verdict.chosen else ""
    interval = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return [
        one.name + mark,
        one.about,
        f"{one.parameters:,}",
        str(one.folds),
        f"{one.auc:.3f}{interval}",
        MISSING if one.ahead is None else f"{one.ahead:+.3f}" + ("" if one.error is None else f" ± {one.error:.3f}"),
        f"{one.acc:.3f}",
        f"{one.seconds:.1f}",
    ]


def sentences(tuned: Tuned) -> list[str]:
    """Return what was found, a sentence each: who is chosen and why, what to expect, and what the test images said."""
    verdict, name = tuned.verdict, name_of(tuned.dataset)
    one, (low, high) = verdict.of_chosen, verdict.between
    return [
        *_choice(verdict),
        f"Expect an AUC of {verdict.expected:.3f} [{low:.3f}, {high:.3f}] on new images like those of "
        f"{name}" + ("." if verdict.chosen == verdict.first else f"; {one.auc:.3f} over folds is what chance helped."),
        f"One reading of {verdict.images:,} test images should fall between {verdict.reading[0]:.3f} and "
        f"{verdict.reading[1]:.3f}, in 19 of 20 cases. It is {tuned.test:.3f}"
        + (f", the mean of {len(tuned.runs)} seeds." if len(tuned.runs) > 1 else "."),
        *_baseline(verdict),
    ]


def _choice(verdict: Verdict) -> list[str]:
    first, noise = verdict.of(verdict.first), "" if verdict.error is None else f" ± {verdict.error:.3f}"
    gain = f"{verdict.gain:+.3f}{noise}, with what chance adds to the best of many taken off"
    if first.parameters > verdict.most:
        return [
            f"{verdict.chosen} is the best of at most {verdict.most:,} parameters; {first.name} has "
            f"{first.parameters:,}. The difference: {gain}."
        ]
    if verdict.best == first.name:
        return [f"{first.name} won: no other recipe has a better mean."]
    if verdict.chosen == first.name:
        return [
            f"{first.name} won: the best of the others, {verdict.best}, is ahead by {gain}. That is no more than noise."
        ]
    how = "which is shown" if verdict.shown else "more than a standard error, but less than two: likely, and not shown"
    return [f"{verdict.chosen} won: it is ahead of {first.name} by {gain}: {how}."]


def _baseline(verdict: Verdict) -> list[str]:
    if verdict.baseline is None:
        return []
    one = verdict.of(verdict.baseline)
    return [
        f"A plain baseline is ahead: {one.name} ({one.parameters:,} numbers) has {one.auc:.3f} over the same folds."
    ]
