"""The answer at the top of a report, in words: does the quantum part help, by how much, and how sure is that?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qvit.report.claims import NO_DIFFERENCE, PLAIN, Family, Finding
from qvit.report.controls import CONTROLS
from qvit.report.words import p_value, signed

Tone = Literal["better", "worse", "none"]


@dataclass(frozen=True)
class Line:
    """One line of the answer: a question, the verdict, and the figures behind it."""

    question: str
    verdict: str
    figures: str
    tone: Tone


PLAINLY = "Is a plain baseline ahead of the QViT?"
UNTOLD = Line(
    "Does the quantum part help?",
    "This study cannot tell",
    "it has none of the controls that isolate the quantum part: circuits without entangling gates, circuits that are "
    "not trained, plain cosines; being better than dense matrices does not show that the quantum part helps",
    "none",
)


def answer(first: Sequence[Family], asked: Sequence[Family], titles: dict[str, str]) -> list[Line]:
    """Return the lines of the answer, from the comparisons over all sizes (`first`) and those of each question.

    `titles` holds the datasets' titles by name.
    """
    by_key = {family.key: family for family in first if family.of("auc")}
    controls = [by_key[key] for key, control in CONTROLS.items() if control.isolates and key in by_key]
    lines = [_lead(controls)] if controls else [UNTOLD] if by_key else []
    lines += [_line(by_key[key], titles) for key, control in CONTROLS.items() if control.is_told and key in by_key]
    lines += [_plain(family, titles) for family in asked if family.key == PLAIN and family.of("auc")]
    return lines + [_teacher(family) for family in asked if family.key == "distillation" and family.of("auc")]


def overall(family: Family) -> Finding:
    """Return the AUC finding of a family of one pair: the mean over datasets if there are several."""
    (finding,) = family.mean("auc") or family.of("auc")
    return finding


def _lead(controls: Sequence[Family]) -> Line:
    """Summarise the controls that keep everything except what is quantum."""
    question = "Does the quantum part help?"
    findings = {family.key: overall(family) for family in controls}
    better = [key for key, finding in findings.items() if finding.shown and finding.comparison.difference > 0]
    worse = [key for key, finding in findings.items() if finding.shown and finding.comparison.difference < 0]
    same = [key for key in findings if key not in better + worse]
    said = [
        f"{what} {_listed(keys)}"
        for what, keys in (("better than", better), ("worse than", worse), (f"{NO_DIFFERENCE} from", same))
        if keys
    ]
    verdict, tone = "Not shown", "none"
    if better and not worse:
        verdict, tone = ("Yes", "better") if not same else ("In part", "better")
    elif worse and not better:
        verdict, tone = "No", "worse"
    elif better and worse:
        verdict = "It depends"
    ends = [end for finding in findings.values() for end in (finding.comparison.low, finding.comparison.high)]
    return Line(
        question,
        f"{verdict}: {'; '.join(said)}",
        f"differences in test AUC are between {_number(min(ends))} and {_number(max(ends))} by their 95 % intervals",
        "better" if tone == "better" else "worse" if tone == "worse" else "none",
    )


def _listed(keys: Sequence[str]) -> str:
    names = [CONTROLS[key].words for key in keys]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _line(family: Family, titles: dict[str, str]) -> Line:
    finding = overall(family)
    told = f"test AUC {signed(finding)}, p {p_value(finding.corrected, sign=True)}"
    if finding.dataset is None:
        each = ", ".join(f"{titles[f.dataset or '']} {signed(f)}" for f in family.of("auc"))
        told = f"mean over datasets: {told}. On each: {each}"
    verdict, tone = _verdict(finding)
    return Line(f"QViT against {family.question}:", verdict, told, tone)


def _verdict(finding: Finding) -> tuple[str, Tone]:
    if not finding.shown:
        return NO_DIFFERENCE, "none"
    return ("the QViT is better", "better") if finding.comparison.difference > 0 else ("the QViT is worse", "worse")


def _plain(family: Family, titles: dict[str, str]) -> Line:
    """Say on which datasets which plain baselines are ahead of the QViTs, the furthest first, and by how much."""
    findings = sorted(family.of("auc"), key=lambda one: -one.comparison.difference)
    ahead: dict[str | None, list[str]] = {one.dataset: [] for one in findings if one.comparison.difference > 0}
    if not ahead:
        best = findings[0]
        return Line(
            PLAINLY, "no", f"the best is {best.a} on {titles[best.dataset or '']}, test AUC {signed(best)}", "none"
        )
    for one in findings:
        if one.comparison.difference > 0:
            ahead[one.dataset].append(f"{one.a} {signed(one)}{' (shown)' * one.shown}")
    shown = {one.dataset for one in findings if one.shown and one.comparison.difference > 0}
    total = len({one.dataset for one in findings})
    verdict = f"{f'yes, shown on {len(shown)}' if shown else f'{NO_DIFFERENCE}, but ahead on {len(ahead)}'} of {total}"
    told = "; ".join(f"{titles[name or '']}: {', '.join(each)}" for name, each in ahead.items())
    figures = f"those ahead by mean test AUC, minus {findings[0].b}: {told}"
    return Line(PLAINLY, f"{verdict} datasets", figures, "worse" if shown else "none")


def _teacher(family: Family) -> Line:
    findings = family.of("auc")
    gains = sum(finding.shown and finding.comparison.difference > 0 for finding in findings)
    losses = sum(finding.shown and finding.comparison.difference < 0 for finding in findings)
    values = [finding.comparison.difference for finding in findings]
    return Line(
        "Pre-training on a teacher:",
        f"of {len(findings)} comparisons {gains} show a gain and {losses} a loss",
        f"differences in test AUC from {_number(min(values))} to {_number(max(values))}",
        "better" if gains > losses else "worse" if losses > gains else "none",
    )


def _number(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
