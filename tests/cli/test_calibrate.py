"""`qvit calibrate`: what is told of the validation images, and kept in the run's folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Qvit = Callable[..., Any]


def test_calibrate_tells_and_keeps(qvit: Qvit, run: Path) -> None:
    told = qvit("calibrate", run, "--json")
    assert told.code == 0
    found = json.loads(told.out)
    assert found["images"] == 16
    assert found["temperature"] == 1.0
    assert found["ece_before"] is None
    told = qvit("calibrate", run)
    assert "sensitivity of 0" in told.out
    assert "operating point" in told.out
    assert "Note: Not calibrated: 16 validation images, where 30 are needed." in told.err
    assert (run / "calibration.json").exists()
    told = qvit("calibrate", run, "--clear", "--sensitivity", 0.9)
    assert (told.code, told.err) == (2, "Error: Both --clear and a value were given; use one of them.\n")
    told = qvit("calibrate", run, "--sensitivity", 0.9)
    assert told.code == 2
    assert "this task is multi-class. Leave it out." in told.err
