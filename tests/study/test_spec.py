"""A part of a study."""

from collections import Counter
from pathlib import Path

import pytest

from qvit.errors import ConfigError
from qvit.study.spec import restrict
from study.made import parse


def test_restrict() -> None:
    study = parse(
        "datasets: [phantom, own.npz]\nmodels: qvit_4q2h\nseeds: [4, 5, 6]\n"
        "teachers: {t: [{arch: vit_4q1h, seeds: [8, 9]}]}\nregimes: {scratch: , kd: {teacher: t}}",
        folder=Path("/data"),
    )
    assert restrict(study) == study
    part = restrict(study, datasets=["own"], seeds=2)
    assert (part.datasets, part.seeds, part.text) == (("/data/own.npz",), (4, 5), study.text)
    assert Counter((job.role, job.seed) for job in part.jobs) == {
        ("teacher", 8): 1,
        ("teacher", 9): 1,
        ("student", 4): 2,
        ("student", 5): 2,
    }
    assert restrict(study, datasets=["own.npz", "phantom"]) == study
    for wrong, told in (
        (
            {"datasets": ["phantm"]},
            "The study study has no dataset 'phantm'. Did you mean 'phantom'? It has: phantom, own.",
        ),
        ({"seeds": 0}, "The study study has 3 seeds: --seeds must be from 1 to that number, got 0."),
        ({"seeds": 4}, "The study study has 3 seeds: --seeds must be from 1 to that number, got 4."),
    ):
        with pytest.raises(ConfigError) as caught:
            restrict(study, **wrong)  # type: ignore[arg-type]
        assert str(caught.value) == told
