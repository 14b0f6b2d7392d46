from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qvit.data.augment import GROUPS, apply_element, augment, group_size, random_elements
from qvit.data.registry import DATASETS
from qvit.training.config import TrainConfig

NAMES = st.sampled_from(sorted(GROUPS))


def images_of(b: int, c: int, h: int, w: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Every pixel of an image differs from its others, as far as eight bits allow."""
    return (torch.arange(b * c * h * w) % 251).reshape(b, c, h, w).to(dtype)


def square() -> Tensor:
    return torch.arange(49).reshape(1, 1, 7, 7)


@pytest.mark.parametrize("group", GROUPS)
def test_elements_form_a_group(group: str) -> None:
    orbit = [apply_element(square(), e, group) for e in range(group_size(group))]
    assert torch.equal(orbit[0], square())
    seen = {tuple(image.flatten().tolist()) for image in orbit}
    assert len(seen) == group_size(group), "elements must differ"
    for image in orbit:
        for e in range(group_size(group)):
            assert tuple(apply_element(image, e, group).flatten().tolist()) in seen


def test_d4_has_all_symmetries_of_the_square() -> None:
    assert torch.equal(apply_element(square(), 4, "d4"), square().flip(-1))
    assert torch.equal(apply_element(square(), 6, "d4"), square().flip(-2))
    assert torch.equal(apply_element(square(), 1, "d4"), torch.rot90(square(), 1, (-2, -1)))
    transposed = square().transpose(-1, -2)
    assert any(torch.equal(apply_element(square(), e, "d4"), transposed) for e in range(8))


@settings(max_examples=40, deadline=None)
@given(group=NAMES, b=st.integers(0, 13), c=st.sampled_from([1, 3]), side=st.integers(1, 11), data=st.data())
def test_one_by_one_is_what_whole_batches_give(group: str, b: int, c: int, side: int, data: st.DataObject) -> None:
    wide = side if group == "d4" else data.draw(st.integers(1, 11))
    images = images_of(b, c, side, wide, data.draw(st.sampled_from([torch.uint8, torch.float32, torch.int64])))
    elements = torch.tensor(data.draw(st.lists(st.integers(0, GROUPS[group] - 1), min_size=b, max_size=b)))
    result = augment(images, elements.long(), group)
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    for i in range(b):
        assert torch.equal(result[i : i + 1], apply_element(images[i : i + 1], int(elements[i]), group))


@settings(max_examples=30, deadline=None)
@given(group=NAMES, element=st.integers(0, 7), side=st.integers(1, 12))
def test_each_element_is_a_bijection_of_pixels(group: str, element: int, side: int) -> None:
    grid = torch.arange(side * side).reshape(1, 1, side, side)
    moved = apply_element(grid, element % GROUPS[group], group)
    assert torch.equal(moved.flatten().sort().values, grid.flatten())


def test_channels_move_together_and_views_are_understood() -> None:
    channels_last = images_of(5, 9, 9, 3).permute(0, 3, 1, 2)
    elements = torch.tensor([0, 3, 5, 7, 2])
    assert torch.equal(augment(channels_last, elements, "d4"), augment(channels_last.contiguous(), elements, "d4"))


def test_gradients_pass_even_after_use_in_inference_mode() -> None:
    elements = torch.tensor([1, 6])
    with torch.inference_mode():
        augment(torch.rand(2, 1, 17, 17), elements, "d4")
    images = torch.rand(2, 1, 17, 17, requires_grad=True)
    (augment(images, elements, "d4") ** 2).sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, 2 * images)


def test_random_elements_cover_the_group_evenly_and_repeat() -> None:
    drawn = random_elements(8000, "d4", torch.Generator().manual_seed(3))
    assert torch.equal(drawn, random_elements(8000, "d4", torch.Generator().manual_seed(3)))
    assert drawn.bincount(minlength=8).min() > 850
    assert len(drawn.bincount()) == 8
    assert random_elements(5, "none").tolist() == [0] * 5


def test_the_groups_of_datasets_training_and_this_module_are_the_same() -> None:
    assert GROUPS == {"none": 1, "mirror": 2, "d4": 8}
    assert {info.augment for info in DATASETS.values()} == set(GROUPS)
    choices = get_args(get_type_hints(TrainConfig)["augment"])
    assert set(choices) - {"auto"} == set(GROUPS)


def test_what_a_group_may_be_given_at_its_ends() -> None:
    """Images that are not square where nothing is turned, none at all, the last element."""
    wide = images_of(2, 1, 4, 6)
    assert torch.equal(apply_element(wide, 0, "none"), wide)
    assert torch.equal(augment(wide, torch.tensor([1, 0]), "mirror"), torch.stack([wide[0].flip(-1), wide[1]]))
    assert augment(images_of(0, 1, 4, 4), torch.zeros(0, dtype=torch.long), "d4").shape == (0, 1, 4, 4)
    image = torch.tensor([[[[1, 2], [3, 4]]]])
    # Mirrored, [[2, 1], [4, 3]], then turned three quarters anticlockwise.
    assert apply_element(image, 7, "d4").tolist() == [[[[4, 2], [3, 1]]]]
    assert apply_element(image, 1, "d4").tolist() == [[[[2, 4], [1, 3]]]]
