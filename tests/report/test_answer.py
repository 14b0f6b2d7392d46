"""The short answers: what is said first, in whichever direction a study decides."""

import re
from typing import get_args

import pytest

from qvit.report.answer import Tone
from qvit.report.arms import load_results
from qvit.report.controls import CONTROLS
from qvit.study.spec import Job
from report.made import MakeStudy, answers

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.mark.parametrize(("ours", "said"), [(0.2, "the QViT is worse"), (1.5, "no difference shown")])
def test_the_other_answers(make_study: MakeStudy, ours: float, said: str) -> None:
    text = "datasets: [a.npz, b.npz]\nmodels: [qvit_4q1h, vit_4q1h]\nseeds: 4"
    found = load_results(make_study(text, skill=lambda job: ours if job.model.kind == "qvit" else 1.5, images=60))
    [first, told] = answers(found)
    assert (first.verdict, first.tone) == ("This study cannot tell", "none")  # whether the quantum part helps
    assert (told.verdict, told.tone) == (said, "worse" if "worse" in said else "none")
    assert "mean over datasets" in told.figures
    assert "Set A " in told.figures


@pytest.mark.parametrize(
    ("cosine", "no_entangler", "said", "tone"),
    [
        (0.2, 0.2, "Yes: better than {cosine} and {no_entangler}", "better"),
        (0.2, 1.5, "In part: better than {cosine}; no difference shown from {no_entangler}", "better"),
        (1.5, 1.5, "Not shown: no difference shown from {cosine} and {no_entangler}", "none"),
        (3.5, 1.5, "No: worse than {cosine}; no difference shown from {no_entangler}", "worse"),
        (0.2, 3.5, "It depends: better than {cosine}; worse than {no_entangler}", "none"),
    ],
)
def test_whether_the_quantum_part_helps(
    make_study: MakeStudy, cosine: float, no_entangler: float, said: str, tone: str
) -> None:
    strength = {"qvit": 1.5, "cosine": cosine, "no_entangler": no_entangler}
    text = "datasets: a.npz\nmodels: {kind: [qvit, cosine, no_entangler]}\nseeds: 4"
    told = answers(load_results(make_study(text, skill=lambda job: strength[job.model.kind], images=60)))
    assert (told[0].question, told[0].tone) == ("Does the quantum part help?", tone)
    assert tone in get_args(Tone)
    found = told[0].verdict
    for kind in ("cosine", "no_entangler"):
        found = found.replace(CONTROLS[kind].words, f"{{{kind}}}")
    assert sorted(re.split("[ ;:]+", found)) == sorted(re.split("[ ;:]+", said))
    assert found.partition(":")[0] == said.partition(":")[0]


WITH_BASELINES = "datasets: [a.npz, b.npz]\nmodels: {kind: [qvit], qubits: [4, 8]}\nbaselines: auto\nseeds: 4"
FOREST = r"a forest of extra trees \(11,000 parameters\)"
PLAINLY = "Is a plain baseline ahead of the QViT?"


@pytest.mark.parametrize(
    ("best", "verdict", "tone"),
    [
        (3.5, "yes, shown on 1 of 2 datasets", "worse"),
        (1.55, "no difference shown, but ahead on 1 of 2 datasets", "none"),
        (0.2, "no", "none"),
    ],
)
def test_whether_a_plain_baseline_is_ahead(make_study: MakeStudy, best: float, verdict: str, tone: str) -> None:
    """Trees are as good as `best` on the first dataset; all else is worse than the QViTs."""

    def skill(job: Job) -> float:
        if job.model.kind == "qvit":
            return 1.5
        if job.model.kind != "extra_trees" or "a.npz" not in job.dataset:
            return 0.1
        return best + 0.3 * (-1) ** job.seed * (best == 1.55)  # a little better on average, now better and now worse

    [told] = answers(load_results(make_study(WITH_BASELINES, skill=skill, images=60)))
    assert (told.question, told.verdict, told.tone) == (PLAINLY, verdict, tone)
    if verdict == "no":
        assert re.fullmatch(r"the best is .* on Set [AB], test AUC −0\.\d{3} \[.*\]", told.figures)
        return
    shown = r" \(shown\)" * (best > 3)
    pattern = rf"those ahead by mean test AUC, minus mean of 2 QViTs: Set A: {FOREST} \+0\.\d{{3}} \[.*\]{shown}"
    assert re.fullmatch(pattern, told.figures), told.figures


def test_two_baselines_that_are_ahead_stand_in_their_order(make_study: MakeStudy) -> None:
    strength = {"qvit": 0.5, "logistic": 1.5, "nearest": 3.0}
    text = WITH_BASELINES.replace("[a.npz, b.npz]", "c.npz").replace("[4, 8]", "4")
    told = answers(load_results(make_study(text, skill=lambda job: strength.get(job.model.kind, 0.1), images=60)))
    assert "minus QViT: Set C: nearest neighbour (11,000 parameters) +" in told[0].figures
    assert told[0].figures.index("nearest neighbour") < told[0].figures.index("logistic regression")
    assert told[0].verdict == "yes, shown on 1 of 1 datasets"
