"""The short answers: what is said first, in whichever direction a study decides."""

import re
from typing import get_args

import pytest

from qvit.report.answer import Tone
from qvit.report.arms import load_results
from qvit.report.controls import CONTROLS
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
