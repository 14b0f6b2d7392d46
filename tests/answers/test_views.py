"""One pass: the same probabilities as evaluation has, and the features that they come from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qvit.answers.views import answer
from qvit.training.folder import Run
from qvit.training.prediction import predict


@pytest.mark.parametrize("group", ["none", "mirror", "d4"])
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_answers_are_those_of_evaluation(trained: Callable[..., Path], task: str, group: str) -> None:
    run = Run(trained(task))
    model, data = run.load_model(), run.load_data()
    scores, features = answer(model, np.array(data.test.images), task, group)
    assert scores == pytest.approx(predict(model, data.test, task, group=group), abs=1e-6)
    with torch.no_grad():
        tokens = model.forward_features(torch.from_numpy(np.array(data.test.images)))
        pooled = model.forward_head(tokens, pre_logits=True)
        assert features == pytest.approx(pooled.double().numpy(), abs=1e-5), "of the images as they are"
    assert not model.training


def test_many_images_are_taken_in_parts(trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(trained())
    model, images = run.load_model(), np.array(run.load_data().test.images)
    whole = answer(model, images, "multi-class", "d4")
    monkeypatch.setattr("qvit.answers.views.BATCH", 20)
    for one, other in zip(whole, answer(model, images, "multi-class", "d4"), strict=True):
        assert one == pytest.approx(other, abs=1e-6)
