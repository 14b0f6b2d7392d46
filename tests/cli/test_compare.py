"""`qvit compare`: whose runs, and what their data are called."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]


@pytest.mark.long
def test_compare_names_an_own_file_by_its_plain_path(
    train: Qvit, qvit: Qvit, run: Path, npz: Path, tmp_path: Path
) -> None:
    assert train(tmp_path / "sized", size=12).code == 0
    read = json.loads(qvit("compare", run, tmp_path / "sized", "--json").out)
    assert {row["dataset"] for key in ("runs", "means") for row in read[key]} == {str(npz)}
