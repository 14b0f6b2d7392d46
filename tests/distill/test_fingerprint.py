"""The digest of teachers: all that is saved and all that computes, and nothing of where or when it was taken."""

import copy
import io
import random
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.distill import Teacher
from qvit.distill.fingerprint import digest_of
from qvit.models import Network, NetworkConfig, ViT, ViTConfig
from qvit.models.projections import Linear
from qvit.training.config import TrainConfig


def digest(*modules: nn.Module) -> str:
    return Teacher.of_module(modules[0]).digest if len(modules) == 1 else digest_of(modules)


def test_the_digest_is_that_of_all_that_is_saved() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    same = copy.deepcopy(module)
    assert digest(module) == digest(same.eval())
    assert digest(module) == digest(same.requires_grad_(False))
    found = {digest(module)}
    for name in module.state_dict():
        other = copy.deepcopy(module)
        other.state_dict()[name].flatten().view(torch.uint8)[0] ^= 1
        found.add(digest(other))
    assert len(found) == 1 + len(module.state_dict()) == 1 + 2 + 5


def test_the_digest_is_that_of_the_network_too() -> None:
    linear = nn.Linear(4, 4)
    found = {
        digest(nn.Sequential(linear, nn.ReLU())),
        digest(nn.Sequential(linear, nn.GELU())),
        digest(nn.Sequential(linear)),
        digest(copy.deepcopy(linear).bfloat16()),
        digest(linear),
    }
    assert len(found) == 5


def test_the_digest_tells_types_and_shapes_of_the_same_bytes_apart() -> None:
    def holding(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, torch.zeros(shape, dtype=dtype))
        return module

    found = [holding("a", 6), holding("b", 6), holding("a", 2, 3), holding("a", 3, 2), holding("a", 0), nn.Module()]
    found += [holding("a", 6, dtype=torch.int32), holding("a", dtype=torch.bool)]
    assert len({digest(module) for module in found}) == 8


def test_the_digest_knows_neither_places_in_memory_nor_the_order_of_sets() -> None:
    """Where an object lies in memory, and in which order a set is walked through, is another in each."""

    @dataclass(frozen=True)
    class Options:
        classes: frozenset[int]
        more: Any
        hidden: float = field(default_factory=random.random, repr=False)  # as it is in the `repr` of a module

    def module(*classes: int, name: str = "scale") -> nn.Module:
        class Scaled(nn.Identity):
            def __init__(self) -> None:
                super().__init__()
                self.config = Options(frozenset(classes), {"each": [set(classes)], "by": abs})
                self.scale = lambda x: x

            def extra_repr(self) -> str:
                return f"{name}={self.scale}"

        return Scaled()

    first, again = module(0, 8), module(8, 0)
    assert repr(first) != repr(again), "or the case is of no use"
    assert repr(first.config) != repr(again.config), "or the case is of no use"
    assert digest(first) == digest(again)
    assert len({digest(first), digest(module(0, 9)), digest(module(0, 8, name="shift"))}) == 3


def test_the_digest_sees_what_neither_weights_nor_names_show() -> None:
    """As many heads as there are, or a size to enlarge images to."""
    for kind, configs in (
        (ViT, [ViTConfig(img_size=12, heads=heads, projection=Linear()) for heads in (1, 2)]),
        (Network, [NetworkConfig("resnet18", img_size=12, width=1 / 64, resize=resize) for resize in (None, 24)]),
    ):
        first, second = kind(configs[0]), kind(configs[1])
        second.load_state_dict(first.state_dict())
        assert repr(first) == repr(second), "the case is of no use if it shows"
        assert digest(first) != digest(second)


def test_the_digest_of_an_ensemble_knows_order_and_number() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    found = [digest(first), digest(second), digest(first, second), digest(second, first), digest(first, first)]
    assert len(set(found)) == 5


class Remembering(nn.Module):
    """A module that saves what it is told to."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra


@pytest.mark.filterwarnings("ignore:torch.quantize_per_:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
def test_the_digest_sees_into_quantised_weights() -> None:
    torch.manual_seed(0)
    linear, found = nn.Sequential(nn.Linear(3, 2)), []
    found.append(digest(linear))
    for change in ("nothing", "weight", "bias", "dtype"):
        changed = copy.deepcopy(linear)
        if change in ("weight", "bias"):
            getattr(changed[0], change).data[0] *= 2
        dtype = torch.float16 if change == "dtype" else torch.qint8
        quantised = torch.ao.quantization.quantize_dynamic(changed, {nn.Linear}, dtype=dtype)
        found.append(digest(quantised))
        assert digest(copy.deepcopy(quantised)) == found[-1]
    numbers = torch.zeros(2, 2)  # the same integers by any scale
    for scale, zero in ((0.1, 0), (0.2, 0), (0.1, 1)):
        found.append(digest(Remembering(torch.quantize_per_tensor(numbers, scale, zero, torch.qint8))))
    for scales, axis in (([0.1, 0.2], 0), ([0.1, 0.2], 1), ([0.2, 0.1], 0)):
        made = torch.quantize_per_channel(numbers, torch.tensor(scales), torch.zeros(2), axis, torch.qint8)
        found.append(digest(Remembering(made)))
    assert len(set(found)) == 1 + 4 + 3 + 3


LIKE_EACH_OTHER: list[Any] = [
    None, 0, False, 0.0, "", b"", "0", "None", (), [], {}, set(), {0: 1}, {1: 0}, [0, 1], (0, 1), [[0], 1], [0, [1]],
    torch.zeros(2), (torch.zeros(2),), np.zeros(2), np.zeros((2, 1)), np.zeros(2, int),
    np.array([0, "a"], dtype=object),
    torch.zeros(2).to_sparse(), torch.float32, nn.Linear, copy.copy, io.BytesIO(b"a"), io.BytesIO(b"b"), TrainConfig(),
    TrainConfig(lr=1.0), OrderedDict(), 1j, torch.ones(2, dtype=torch.cfloat), torch.ones(2, dtype=torch.cfloat) * 1j,
    (torch.ones(2, dtype=torch.cfloat) * 1j).conj(), {"a", "b"}, frozenset({"a", "b"}), range(3), range(4),
]  # fmt: skip


def test_the_digest_tells_everything_that_a_module_saves_apart() -> None:
    found = [digest(Remembering(value)) for value in LIKE_EACH_OTHER]
    assert len(set(found)) == len(LIKE_EACH_OTHER)
    assert [digest(Remembering(copy.deepcopy(value))) for value in LIKE_EACH_OTHER] == found
    loops: list[list[Any]] = [[1], [], []]
    loops[0].append(loops[0])
    loops[1].append([loops[1]])  # back to the outer list
    inner: list[Any] = []
    inner.append(inner)  # or to the inner one
    loops[2].append(inner)
    assert len({*found, *(digest(Remembering(loop)) for loop in loops)}) == len(found) + 3


def test_the_digest_is_the_same_in_every_process() -> None:
    """Known ones: they change with neither the seed of hashes nor where objects lie, or all caches were lost."""

    class Own(nn.Module):
        def __init__(self, config: Any, extra: Any) -> None:
            super().__init__()
            self.config, self.extra = config, extra
            self.register_buffer("numbers", torch.arange(3.0))

        def get_extra_state(self) -> Any:
            return self.extra

    Own.__module__ = "somewhere"
    first = Own({"a": {"y", "x", "z"}}, None)
    second = Own((1, ["b"]), {"set": {"a", "b", "c", 1, None}, "file": io.BytesIO(b"a"), "part": [torch.int8, print]})
    assert digest(first) == "0f5356af098092583af7514c2ec6d3ade2124a3fe0684e38d2667c7942f905e9"
    assert digest(second) == "46aaeede184af131e09bd0653abc910feedd9e3f1820073e5c98eb644b190ba3"
    assert digest(first, second) == "e84da8d1c154100048f4c97f4e641978f6ffebc3949b58f9d79c218b2e59784a"
