"""`qvit calibrate`: the figures on validation images, and what is kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from answers.conftest import NAMES, copied
from qvit.answers.choosing import calibrated
from qvit.answers.evidence import load
from qvit.errors import ConfigError, RunError
from qvit.training.folder import Run


@pytest.fixture
def binary(trained: Callable[..., Path], tmp_path: Path) -> Run:
    return copied(trained("binary"), tmp_path / "binary")


def test_figures_are_those_of_validation(run: Run) -> None:
    found = calibrated(run.folder)
    assert found["images"] == 60
    assert found["notes"] == []
    assert found["operating_point"] is None
    answers, labels = run.predictions("val").argmax(axis=1), run.load_data().val.labels[:, 0]
    for k, name in enumerate(NAMES):
        assert found[f"sensitivity of {name}"] == pytest.approx((answers == k)[labels == k].mean())
        assert found[f"specificity of {name}"] == pytest.approx((answers != k)[labels != k].mean())
    assert 0 <= found["ece_after"] <= 1
    assert found["temperature"] > 0


@pytest.mark.parametrize("measure", ["sensitivity", "specificity"])
def test_an_operating_point_is_kept_and_forgotten(binary: Run, measure: str) -> None:
    found = calibrated(binary.folder, **{measure: 0.9})
    assert found["operating_point"] == f"{measure} 0.9"
    assert found[f"{measure} of {NAMES[1]}"] >= 0.9
    assert set(found) >= {"sensitivity of dark"}
    assert "sensitivity of bright" not in found, "the other side of the same question"
    kept = load(binary)
    assert kept is not None
    assert kept.operating == (measure, 0.9)
    assert calibrated(binary.folder)["operating_point"] == f"{measure} 0.9"
    assert calibrated(binary.folder, clear=True)["operating_point"] is None
    again = load(binary)
    assert again is not None
    assert again.operating is None
    assert np.array_equal(again.scores, kept.scores)


def test_what_cannot_be_chosen(run: Run, binary: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda _: [])
    with pytest.raises(ConfigError, match="is chosen for yes-or-no questions"):
        calibrated(run.folder, sensitivity=0.9)
    assert load(run) is None, "nothing is kept of what was refused"
    with pytest.raises(ConfigError, match="sensitivity"):
        calibrated(binary.folder, sensitivity=0.0)
    (binary.folder.parent / "squares.npz").unlink()
    with pytest.raises(RunError, match="which is not there any more"):
        calibrated(binary.folder)
