"""`qvit models` and `qvit cost`: all that can be built, and what a model takes."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from qvit.models import model_config
from qvit.models.cost import cost_of, si
from qvit.models.zoo import KINDS

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]


def test_models(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.models.zoo.list_models", lambda: ["vit_4q1h", "qvit_4q2h"])
    told = qvit("models")
    assert (told.code, told.err) == (0, "")
    assert "Models for 5 classes of 3 × 28 × 28 images" in told.out
    sizes = f"Othersizesworktoo:{{{','.join(KINDS)}}}_{{qubits}}q{{heads}}h."
    said = re.sub(r"\s", "", told.out)
    assert sizes in said
    assert "dsconv,ordsconv_4q2h_matched.Plainbaselines:logistic,extra_trees,nearest,commonest." in said
    heads, _, row = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert heads == ["name", "width", "heads", "MLP", "parameters", "in Q, K, V"]
    assert row == ["qvit_4q2h", "8", "2", "8", "1117", "24"]


def test_models_as_json(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts and computes nothing: a figure of forty models' simulation took eighteen seconds on a slow machine."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("qvit.models.cost.cost_of", refuse)
    monkeypatch.setattr("qvit.models.vit.ViT.forward", refuse)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # two seconds to import; drawing on the meta device does
    monkeypatch.setattr("qvit.models.zoo.list_models", lambda: ["vit_4q1h", "qvit_4q2h"])
    rows = {row["name"]: row for row in json.loads(qvit("models", "--json", "--channels", 1, "--classes", 2).out)}
    assert list(rows) == ["vit_4q1h", "qvit_4q2h"]
    keys = {"name", "projection", "width", "heads", "mlp", "parameters", "parameters_in_projections"}
    assert all(row.keys() == keys for row in rows.values())
    assert (rows["qvit_4q2h"]["parameters"], rows["qvit_4q2h"]["parameters_in_projections"]) == (834, 24)


@pytest.mark.long
def test_cost_of_a_model(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    once = cache(cost_of)
    monkeypatch.setattr("qvit.models.cost.cost_of", once)
    cost = once(model_config("qvit_4q2h", in_chans=1, num_classes=2))
    asked = ["models", "--cost", "qvit_4q2h", "--channels", 1, "--classes", 2]
    row = json.loads(qvit(*asked, "--json").out)
    assert row["name"] == "qvit_4q2h"
    assert {key: row[key] for key in asdict(cost)} == json.loads(json.dumps(asdict(cost)))
    table = qvit(*asked).out
    assert cost.hardware is not None
    for told, count in {
        "parameters": "834",
        "FLOPs without circuits": si(cost.classical_flops),
        "simulation by heisenberg (taken)": si(cost.simulation_flops_by_engine["heisenberg"]),
        "simulation by statevector": si(cost.simulation_flops_by_engine["statevector"]),
        "circuits to run": str(cost.hardware.circuits),
        "depth of the deepest": str(cost.hardware.depth),
    }.items():
        assert re.search(rf"│ {re.escape(told)} +│ +{count} │", table), told
    network = json.loads(qvit("models", "--cost", "vit_4q1h", "--json").out)
    assert (network["hardware"], network["simulation_flops"]) == (None, 0)
    assert "circuits to run" not in qvit("models", "--cost", "vit_4q1h").out


@pytest.mark.parametrize(("name", "count"), [("logistic", "1,400"), ("nearest", "depends on the training images")])
def test_cost_of_a_baseline(qvit: Qvit, name: str, count: str) -> None:
    """As many numbers as are stored, where that is known before it is fitted."""
    assert re.search(rf"│ parameters +│ +{count} │", qvit("models", "--cost", name).out)
    row = json.loads(qvit("models", "--cost", name, "--json").out)
    assert row["parameters"] == (1400 if count == "1,400" else None)
