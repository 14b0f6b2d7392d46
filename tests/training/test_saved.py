"""Weights on disk: plain tensors, each for itself, and a word about all else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qvit.errors import ModelError
from qvit.training.checkpoint import save_weights
from qvit.training.saved import check_tensors, copied, on_cpu


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"a": 1}, "dict"),
        (None, "NoneType"),
        ((torch.ones(2), None), "tuple"),
        (torch.qint8, "dtype"),
        (torch.ones(2).to_sparse(), "quantised or sparse tensor"),
        ("quantised", "quantised or sparse tensor"),
    ],
)
def test_what_a_file_of_weights_cannot_hold_is_named(tmp_path: Path, value: Any, kind: str) -> None:
    if value == "quantised":
        value = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    saved = {"fine": torch.ones(2), "body._extra_state": value}
    with pytest.raises(ModelError, match=rf"saves 'body\._extra_state' as a {kind}\. Train it with `fit`"):
        save_weights(tmp_path / "weights", saved)
    assert list(tmp_path.iterdir()) == []
    check_tensors({"fine": torch.ones(2)})


def test_copies_share_nothing_and_keep_what_quantised_parts_are_read_by() -> None:
    net = nn.BatchNorm1d(2)
    saved = net.state_dict()
    saved["more"] = (torch.ones(2), [torch.ones(1)], {"set": {1}})
    for twin in (copied(saved), on_cpu(saved)):
        assert twin._metadata == saved._metadata
        assert twin.keys() == saved.keys()
        assert twin["more"][2]["set"] is not saved["more"][2]["set"]
    twin = copied(saved)
    for value in (saved["weight"], saved["more"][0], saved["more"][1][0]):
        value.add_(1)
    assert (twin["weight"].sum(), twin["more"][0].sum(), twin["more"][1][0].sum()) == (2, 2, 1)
