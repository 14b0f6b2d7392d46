"""Weights on disk: plain tensors, each for itself, and a word about all else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qvit.errors import ModelError
from qvit.training.checkpoint import save_weights
from qvit.training.saved import check_tensors, copied, on_cpu, running_mean


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


def test_a_running_mean_is_that_of_all() -> None:
    """Of whole numbers, and what is no tensor, the latest; it shares nothing with what it is made of."""
    net, rng = nn.BatchNorm1d(3), torch.Generator().manual_seed(0)
    saved = []
    for count in range(1, 6):
        net.weight.data.normal_(generator=rng)
        net.running_var.normal_(generator=rng)
        net.num_batches_tracked.fill_(count)
        saved.append(copied(net.state_dict()) | {"half": torch.tensor([count]).half(), "more": count})
    mean = saved[0]
    for count, latest in enumerate(saved[1:], 2):
        mean = running_mean(mean, latest, count)
    for name in ("weight", "running_var", "bias"):
        expected = torch.stack([one[name] for one in saved]).double().mean(0)
        torch.testing.assert_close(mean[name].double(), expected, rtol=0, atol=1e-6)
    assert mean["num_batches_tracked"].item() == 5
    assert mean["half"].item() == 3.0
    assert mean["half"].dtype == torch.float16
    assert mean["more"] == 5
    before = mean["weight"].clone()
    again = running_mean(mean, saved[0], 2)
    again["weight"].zero_()
    again["num_batches_tracked"].zero_()
    assert torch.equal(mean["weight"], before)
    assert saved[0]["num_batches_tracked"].item() == 1
