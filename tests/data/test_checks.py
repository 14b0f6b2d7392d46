"""What files hold, in any form that means the same, and what is said of labels that look wrong."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.arrays import load_dataset
from qvit.errors import DataError

Arrays = dict[str, Any]
Save = Callable[..., Path]


@pytest.mark.parametrize("form", ["(N, S, S)", "(N, S, S, 1)", "Fortran", "stored"])
def test_grey_images_in_any_form(form: str, arrays: Arrays, save: Save) -> None:
    grey = {k: v[..., 0] if "images" in k else v for k, v in arrays.items()}
    saved = dict(grey)
    for key in ("train_images", "val_images", "test_images"):
        if form == "(N, S, S, 1)":
            saved[key] = grey[key][..., None]
        elif form == "Fortran":
            saved[key] = np.asfortranarray(grey[key])
    data = load_dataset(save(saved, compressed=form != "stored"))
    assert data.info.channels == 1
    assert np.array_equal(data.test.images[:, 0], grey["test_images"])


@pytest.mark.parametrize("form", [np.int8, np.uint16, np.int64, np.float32, "flat"])
def test_labels_in_any_form(form: Any, arrays: Arrays, save: Save) -> None:
    saved = {k: v if "images" in k else v[:, 0] if form == "flat" else v.astype(form) for k, v in arrays.items()}
    assert np.array_equal(load_dataset(save(saved)).val.labels, arrays["val_labels"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_float_images_are_rounded_to_eight_bits(dtype: Any, arrays: Arrays, save: Save) -> None:
    saved = {k: (v / 255).astype(dtype) if "images" in k else v for k, v in arrays.items()}
    data = load_dataset(save(saved))
    assert data.train.images.dtype == np.uint8
    assert np.array_equal(data.train.images.transpose(0, 2, 3, 1), arrays["train_images"])


def test_tasks_are_inferred_or_given(arrays: Arrays, save: Save) -> None:
    binary = {k: v if "images" in k else v > 2 for k, v in arrays.items()}
    rng = np.random.default_rng(0)
    multi = {k: v if "images" in k else rng.integers(0, 2, (len(v), 3)) for k, v in arrays.items()}
    assert load_dataset(save(binary)).info.task == "binary"
    assert load_dataset(save(binary)).info.num_classes == 2
    data = load_dataset(save(multi))
    assert (data.info.task, data.info.num_classes, data.train.labels.shape) == ("multi-label", 3, (23, 3))
    assert load_dataset(save(arrays), task="ordinal").info.task == "ordinal"


def test_suspicious_labels_are_warned_of(arrays: Arrays, save: Save) -> None:
    gap = {k: np.where(v == 3, 2, v) if "train_labels" in k else v for k, v in arrays.items()}
    path = save(gap)
    with pytest.warns(UserWarning, match=rf"^{re.escape(str(path))}: no training image of class 3\.$"):
        assert load_dataset(path).info.num_classes == 5
    one_hot = {k: v if "images" in k else np.eye(5, dtype=int)[v[:, 0]] for k, v in arrays.items()}
    message = "read as multi-label, but every image has exactly one label; if these are one-hot classes, save class "
    with pytest.warns(UserWarning, match=rf"^{re.escape(str(path))}: {message}numbers instead\.$"):
        load_dataset(save(one_hot))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(save(one_hot), task="multi-label")


@pytest.mark.parametrize("value", [1e30, 2.0**62, 2**63 + 1, -(2**40)])
def test_labels_too_large_for_any_class(value: Any, arrays: Arrays, save: Save) -> None:
    labels = np.array([0, 1, 0, value, 0, 1, 1])
    with pytest.raises(DataError, match=r"whole numbers in val_labels of at most 32 bits, found .* Number the classes"):
        load_dataset(save({**arrays, "val_labels": labels}))


def test_messages_list_a_few_classes(arrays: Arrays, save: Save) -> None:
    many = {
        **arrays,
        "train_labels": np.array([0, 40] * 11 + [40]),
        "val_labels": np.arange(7),
        "test_labels": np.arange(11),
    }
    with pytest.warns(UserWarning, match=r"no training image of class 1, 2, 3, 4, 5, 6, 7, 8 and 31 more\.$"):
        load_dataset(save(many))
    columns = {k: v if "images" in k else np.ones((len(v), 50), int) for k, v in arrays.items()}
    with pytest.raises(DataError, match=r"found only \[1, 1, 1, 1, 1, 1, 1, 1 and 42 more\]"):
        load_dataset(save(columns))
    columns = {k: v if "images" in k else np.zeros((len(v), 100_001), np.uint8) for k, v in arrays.items()}
    with pytest.raises(DataError, match="at most 100000 columns in train_labels, found 100001"):
        load_dataset(save(columns, compressed=False))
