"""Every refusal of `qvit.data`, with the whole line that is said: a table compared with the code's own `raise`s."""

import ast
import importlib
import os
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qvit.data import npz, registry
from qvit.data.arrays import load_dataset, verify
from qvit.data.augment import apply_element, augment, group_size
from qvit.data.fetch import check_size, fetch
from qvit.data.mixtures import mix_images
from qvit.data.npz import KEYS, check_unchanged
from qvit.data.options import ImportOptions
from qvit.data.phantom import make_phantom
from qvit.data.registry import get_info
from qvit.data.transfer import check_disjoint, load_images
from qvit.errors import QvitError

# Damage of a zip and of maps has tables of its own, in test_npz and test_mapped.
MODULES = ("arrays", "augment", "checks", "fetch", "mixtures", "npz", "phantom", "registry", "source", "transfer")
COUNTS = {"train": 23, "val": 7, "test": 11}
Arrays = dict[str, Any]


@dataclass
class Files:
    """What a case is made with: six sound arrays of 6 × 6 pixels, a folder, and a way to change the code."""

    folder: Path
    patch: pytest.MonkeyPatch

    @property
    def path(self) -> Path:
        return self.folder / "own.npz"

    @property
    def arrays(self) -> Arrays:
        made: Arrays = {}
        for seed, (split, n) in enumerate(COUNTS.items()):
            rng = np.random.default_rng(seed)
            made[f"{split}_images"] = rng.integers(0, 256, (n, 6, 6, 3)).astype(np.uint8)
            made[f"{split}_labels"] = (np.arange(n) % 5).astype(np.uint8)
        return made

    def save(self, **changes: Any) -> Path:
        """Write the arrays, some of them changed, and left out where None."""
        np.savez(self.path, **{key: value for key, value in (self.arrays | changes).items() if value is not None})
        return self.path

    def labels(self, change: Callable[[np.ndarray], Any]) -> Path:
        return self.save(**{key: change(value) for key, value in self.arrays.items() if "labels" in key})

    def numbers(self, split: str, place: Any, value: float) -> Path:
        """Write images as numbers in [0, 1], but for one."""
        images = {key: value / 255 for key, value in self.arrays.items() if "images" in key}
        images[f"{split}_images"][place] = value
        return self.save(**images)

    def headed(self, header: str, values: bytes = b"") -> Path:
        """Write the arrays, one with a header of its own."""
        self.save()
        content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + values
        with zipfile.ZipFile(self.path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(self.path, "w") as new:
            for name, held in (members | {"val_labels.npy": content}).items():
                new.writestr(name, held)
        return self.path

    def official(self, **changes: Any) -> Path:
        """Have the registry take the arrays, in grey or not, for RetinaMNIST."""
        images = {f"{split}_images": np.zeros((n, 28, 28, 3), np.uint8) for split, n in COUNTS.items()}
        path = self.save(**images).rename(self.folder / "retinamnist.npz")
        row = registry.DATASETS["retinamnist"]
        changed = {"md5": {**row.md5, 28: npz.md5_of(path)}, "splits": COUNTS} | changes
        self.patch.setitem(registry.DATASETS, "retinamnist", replace(row, **changed))
        return path

    def images(self, **arrays: Any) -> Any:
        np.savez(self.path, **arrays)
        return load_images(self.path, size=6, channels=3)

    def failing(self, error: Exception) -> None:
        """Have the next array that is read end in an error of the system's."""

        def fail(*_: Any, **__: Any) -> Iterator[bytes]:
            raise error

        self.patch.setattr(npz, "unpacked", fail)


OWN = "HERE/own.npz: expected"
HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }"
CLASSES = "Number the classes from 0."
ROWS = "Save one class number, or one row of 0 and 1, for each image."
SHAPES = "Save grey images as (N, S, S), colour images as (N, S, S, 3), channels last."
DAMAGED = "It is damaged or of another kind: save it again with numpy.savez, or copy it anew."
OFFICIAL = "It is not the official file: move it away and run 'qvit data get retinamnist'."
NO_HEADER = f"{OWN} intact arrays, found damage (val_labels has no header of an array of numbers). {DAMAGED}"
PICTURES = torch.zeros(2, 1, 4, 6)
SQUARES = torch.zeros(2, 1, 4, 4)
Case = tuple[Callable[[Files], Any], str]


def header(text: str, values: bytes = bytes(7)) -> Callable[[Files], Any]:
    return lambda f: load_dataset(f.headed(text, values))


def own(**changes: Callable[[Arrays], Any]) -> Callable[[Files], Any]:
    """Return the loading, or verifying, of a file some of whose arrays are made of the sound ones."""
    return lambda f: verify(f.save(**{key: change(f.arrays) for key, change in changes.items()}))


def labels(change: Callable[[np.ndarray], Any], **options: Any) -> Callable[[Files], Any]:
    return lambda f: load_dataset(f.labels(change), **options)


def swapped(values: np.ndarray, place: int, value: Any) -> np.ndarray:
    return np.array([*values[:place], value, *values[place + 1 :]])


def val_label(value: Any, place: int = 3) -> Callable[[Files], Any]:
    return own(val_labels=lambda a: swapped(a["val_labels"], place, value))


def same(f: Files) -> Any:
    """Images to distil on, of which one is tested on and two are validated on."""
    data = load_dataset(f.save())
    images = np.concatenate([f.arrays["train_images"][:2], f.arrays["val_images"][:2], f.arrays["test_images"][4:5]])
    np.savez(f.folder / "more.npz", images=images)
    check_disjoint(load_images(f.folder / "more.npz", size=6, channels=3)[0], data)


def other_shape(f: Files) -> Any:
    np.savez(f.folder / "more.npz", images=np.zeros((2, 5, 5), np.uint8))
    check_disjoint(load_images(f.folder / "more.npz", size=5, channels=1)[0], load_dataset(f.save()))


def while_failing(error: Exception) -> Callable[[Files], Any]:
    def read(f: Files) -> Any:
        path = f.save()
        f.failing(error)
        return load_dataset(path)

    return read


def written_meanwhile(f: Files) -> Any:
    check_unchanged(f.save(), (0, 0, 0))


def blocked(f: Files) -> Any:
    f.path.write_text("in the way")
    fetch("retinamnist", 28, f.path / "root")


def unreachable(f: Files) -> Any:
    def refuse(*_: Any) -> None:
        raise OSError("no\nnetwork")

    f.patch.setattr("qvit.data.fetch._download", refuse)
    fetch("breastmnist", 64, f.folder, base_url="http://there")


def another_md5(f: Files) -> Any:
    f.official(md5=dict.fromkeys((28, 64), "0" * 32)).write_bytes(b"other")
    load_dataset("retinamnist", root=f.folder)


def letters(f: Files) -> Any:
    with zipfile.ZipFile(f.path, "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"no numpy header here")
    load_dataset(f.path)


def flood(f: Files) -> Any:
    """A hundred thousand blank images in a few kilobytes, refused by their header."""
    np.savez_compressed(f.path, **(f.arrays | {"train_images": np.zeros((400_000, 7, 7), np.uint8)}))
    load_dataset(f.path)


def split(f: Files) -> Any:
    return load_dataset(f.save()).train


REFUSALS: dict[str, Case] = {
    # arrays
    "an index that is none": (
        lambda f: split(f)[1.5],
        "Expected the position of one image, a whole number, got float. Take several with split.batch([…]), or "
        "torch.utils.data.Subset.",
    ),
    "an index beyond the end": (
        lambda f: split(f)[23],
        "Expected a position below 23, the images of this split, got 23.",
    ),
    "an index before the start": (
        lambda f: split(f)[-24],
        "Expected a position below 23, the images of this split, got -24.",
    ),
    "a batch of fractions": (
        lambda f: split(f).batch([0.5]),
        "Expected a list of whole-number positions, got float64 (1,).",
    ),
    "a batch of rows": (
        lambda f: split(f).batch([[1]]),
        "Expected a list of whole-number positions, got int64 (1, 1).",
    ),
    "a batch beyond the end": (
        lambda f: split(f).batch([3, 23]),
        "Expected positions below 23, the images of this split, got 3 to 23.",
    ),
    "a split that there is not": (
        lambda f: load_dataset(f.save())["tests"],
        "Unknown split 'tests'. Expected one of: train, val, test.",
    ),
    "a task for an official file": (
        lambda f: load_dataset("phantom", task="binary"),
        "Dataset 'phantom' has the task multi-class, not binary; leave the task out.",
    ),
    "no official file": (
        lambda f: load_dataset("retinamnist", root=f.folder, download=False),
        "HERE/retinamnist.npz: expected the official file of RetinaMNIST, found nothing there. Run 'qvit data get "
        "retinamnist', or save https://zenodo.org/records/10519652/files/retinamnist.npz?download=1 (MD5 "
        "bd4c0672f1bba3e3a89f0e4e876791e4) there.",
    ),
    "no official file of a size": (
        lambda f: load_dataset("octmnist", 64, root=f.folder, download=False),
        "HERE/octmnist_64.npz: expected the official file of OCTMNIST, found nothing there. Run 'qvit data get "
        "octmnist --size 64', or save https://zenodo.org/records/10519652/files/octmnist_64.npz?download=1 (MD5 "
        "e229e9440236b774d9f0dfef9d07bdaf) there.",
    ),
    "another MD5": (
        another_md5,
        "HERE/retinamnist.npz: expected MD5 00000000000000000000000000000000, found 795f3202b17cb6bc3d4b771d8c6c9eaf "
        "(5 bytes). It is damaged, incomplete or another file, and was left untouched: move it away and run 'qvit "
        "data get retinamnist'.",
    ),
    "a size that the file does not have": (
        lambda f: load_dataset(f.save(), 64),
        f"{OWN} images of 64 x 64 pixels, found 6 x 6. Leave the size out, or resize the images.",
    ),
    # checks
    "a task that there is not": (
        lambda f: load_dataset(f.save(), task="ordinl"),
        "Unknown task 'ordinl'. Did you mean 'ordinal'? Expected one of: binary, multi-class, multi-label, ordinal.",
    ),
    "splits of two sizes": (
        own(test_images=lambda a: a["test_images"][:, :5, :5]),
        f"{OWN} test_images like train_images uint8 (23, 6, 6, 3), found uint8 (11, 5, 5, 3). All splits need the "
        "same size, channels and type.",
    ),
    "splits of two types": (
        own(val_images=lambda a: a["val_images"] / 255),
        f"{OWN} val_images like train_images uint8 (23, 6, 6, 3), found float64 (7, 6, 6, 3). All splits need the "
        "same size, channels and type.",
    ),
    "splits of two colours": (
        own(val_images=lambda a: a["val_images"][..., 0]),
        f"{OWN} val_images like train_images uint8 (23, 6, 6, 3), found uint8 (7, 6, 6). All splits need the same "
        "size, channels and type.",
    ),
    "labels of three axes": (
        own(val_labels=lambda a: a["val_labels"][:, None, None]),
        f"{OWN} val_labels of shape (N,), (N, 1) or (N, K), found (7, 1, 1). {ROWS}",
    ),
    "labels of no column": (
        own(val_labels=lambda a: np.zeros((7, 0), np.uint8)),
        f"{OWN} val_labels of shape (N,), (N, 1) or (N, K), found (7, 0). {ROWS}",
    ),
    "labels of too many columns": (
        lambda f: load_dataset(f.labels(lambda v: np.zeros((len(v), 100_001), np.uint8))),
        f"{OWN} at most 100000 columns in train_labels, found 100001. {ROWS}",
    ),
    "too few labels": (
        own(val_labels=lambda a: a["val_labels"][:6]),
        f"{OWN} 7 rows in val_labels, found 6. Save one row of labels for each image, in the same order.",
    ),
    "images of whole numbers": (
        own(train_images=lambda a: a["train_images"].astype(np.int32)),
        f"{OWN} uint8 in train_images, found int32. Convert them, for example train_images.astype('uint8') if they "
        "lie in 0 to 255.",
    ),
    "images of truth values": (
        own(train_images=lambda a: a["train_images"] > 9),
        f"{OWN} uint8 in train_images, found bool. Convert them, for example train_images.astype('uint8') if they lie "
        "in 0 to 255.",
    ),
    "images of two channels": (
        own(train_images=lambda a: a["train_images"][..., :2]),
        f"{OWN} train_images of shape (N, S, S) or (N, S, S, 3), found (23, 6, 6, 2). {SHAPES}",
    ),
    "flat images": (
        own(val_images=lambda a: a["val_images"].reshape(7, -1)),
        f"{OWN} val_images of shape (N, S, S) or (N, S, S, 3), found (7, 108). {SHAPES}",
    ),
    "no images": (
        own(val_images=lambda a: a["val_images"][:0], val_labels=lambda a: a["val_labels"][:0]),
        f"{OWN} images in val_images, found none. At least one is needed.",
    ),
    "images that are not square": (
        own(train_images=lambda a: a["train_images"][:, :5]),
        f"{OWN} square images in train_images, found 5 x 6 pixels. Crop or pad the images to squares.",
    ),
    "images of no pixel": (
        own(train_images=lambda a: a["train_images"][:, :0, :0]),
        f"{OWN} square images in train_images, found 0 x 0 pixels. Crop or pad the images to squares.",
    ),
    "an official file in colour that should be grey": (
        lambda f: load_dataset("retinamnist", root=f.official(channels=1).parent),
        "HERE/retinamnist.npz: expected uint8 images of 28 x 28 pixels in 1 channel(s), found uint8 (23, 28, 28, 3). "
        f"{OFFICIAL}",
    ),
    "an official file of fewer images": (
        lambda f: load_dataset("retinamnist", root=f.official(splits=COUNTS | {"val": 8}).parent),
        f"HERE/retinamnist.npz: expected 8 images in val, found 7. {OFFICIAL}",
    ),
    "an official file of other labels": (
        lambda f: load_dataset("retinamnist", root=f.official(labels=("a", "b")).parent),
        "HERE/retinamnist.npz: expected train_labels from 0 to 1 (ordinal), found 4 (first beyond at image 2). "
        "Correct the labels, or the task.",
    ),
    "another number of columns": (
        own(val_labels=lambda a: np.zeros((7, 2), int)),
        f"{OWN} 1 column(s) in val_labels, as in train, found 2. All splits need the same labels.",
    ),
    "negative labels": (val_label(-3), f"{OWN} val_labels of 0 or more, found -3 (first at image 3). {CLASSES}"),
    "labels of text": (
        own(val_labels=lambda a: np.array(list("abcdefg"))),
        f"{OWN} whole numbers in val_labels, found <U1. {CLASSES}",
    ),
    "truth values of other bytes": (
        header("{'descr': '|b1', 'fortran_order': False, 'shape': (7,), }", b"\0\1\0\1\0\1\xc8"),
        f"{OWN} True and False in val_labels, bytes of 1 and 0, found 200. Save class numbers as whole numbers.",
    ),
    "half a label": (val_label(2.5), f"{OWN} whole numbers in val_labels, found 2.5 at image 3. {CLASSES}"),
    "a label that is no number": (
        val_label(np.nan),
        f"{OWN} whole numbers in val_labels, found nan at image 3. {CLASSES}",
    ),
    "labels of too many bits": (
        val_label(2.0**31),
        f"{OWN} whole numbers in val_labels of at most 32 bits, found 0.0 to 2147483648.0. {CLASSES}",
    ),
    "negative labels of too many bits": (
        val_label(-(2.0**31) - 1),
        f"{OWN} whole numbers in val_labels of at most 32 bits, found -2147483649.0 to 4.0. {CLASSES}",
    ),
    "columns for a task of one": (
        labels(lambda v: np.eye(5, dtype=int)[v], task="ordinal"),
        f"{OWN} 1 column(s) in train_labels for the task ordinal, found 5. Correct the labels, or the task.",
    ),
    "a label beyond the task": (
        labels(lambda v: v, task="binary"),
        f"{OWN} train_labels from 0 to 1 (binary), found 4 (first beyond at image 2). Correct the labels, or the task.",
    ),
    "columns of more than 0 and 1": (
        labels(lambda v: np.stack([v, v], 1)),
        f"{OWN} train_labels from 0 to 1 (multi-label), found 4 (first beyond at image 2). Correct the labels, or the "
        "task.",
    ),
    "one column for a task of several": (
        labels(lambda v: v, task="multi-label"),
        f"{OWN} several columns of labels for the task multi-label, found one. For one label per image choose binary, "
        "multi-class or ordinal.",
    ),
    "a class number beyond all images": (
        val_label(41),
        f"{OWN} classes numbered from 0, found 41 among 41 images. Number the classes 0, 1, 2, … without gaps.",
    ),
    "one class alone": (
        labels(lambda v: v * 0),
        f"{OWN} at least two classes in train_labels, found only [0]. Nothing can be learnt from one class: check the "
        "labels, or the split.",
    ),
    "many labels, always the same": (
        labels(lambda v: np.ones((len(v), 12), int)),
        f"{OWN} at least two classes in train_labels, found only [1, 1, 1, 1, 1, 1, 1, 1 and 4 more]. Nothing can be "
        "learnt from one class: check the labels, or the split.",
    ),
    "a pixel that is no number": (
        lambda f: verify(f.numbers("val", (5, 3, 3, 1), np.nan)),
        f"{OWN} finite numbers in val_images, found NaN or infinity in image 5. Repair or drop that image.",
    ),
    "an endless pixel": (
        lambda f: load_dataset(f.numbers("val", (6, 0, 0, 0), np.inf)),
        f"{OWN} finite numbers in val_images, found NaN or infinity in image 6. Repair or drop that image.",
    ),
    "a pixel above 1": (
        lambda f: load_dataset(f.numbers("val", (2,), 1.5)),
        f"{OWN} numbers in [0, 1] in val_images, found 1.5 to 1.5 in image 2. Scale the images to [0, 1], or save "
        "them as uint8.",
    ),
    "a pixel below 0": (
        lambda f: load_dataset(f.numbers("test", (4,), -0.5)),
        f"{OWN} numbers in [0, 1] in test_images, found -0.5 to -0.5 in image 4. Scale the images to [0, 1], or save "
        "them as uint8.",
    ),
    "too few names of classes": (
        lambda f: load_dataset(f.save(class_names=np.array(["a", "b"]))),
        f"{OWN} at least 5 names in class_names, found 2. Name each class once, in the order of their numbers.",
    ),
    "too many names for two classes": (
        lambda f: load_dataset(f.save(class_names=np.array([*"abcdef"])), task="binary"),
        f"{OWN} 2 names in class_names, found 6. Name each class once, in the order of their numbers.",
    ),
    "a name of two classes": (
        lambda f: load_dataset(f.save(class_names=np.array([*"abcda"]))),
        f"{OWN} different names on one line in class_names, found 'a' twice. Name each class once.",
    ),
    "a name that cannot be printed": (
        lambda f: load_dataset(f.save(class_names=np.array(["a", "b\n", "c", "d", "e"]))),
        f"{OWN} different names on one line in class_names, found 'b\\n'. Name each class once.",
    ),
    # npz
    "names that are numbers": (
        lambda f: load_dataset(f.save(class_names=np.arange(5))),
        f"{OWN} text in class_names, found int64 (5,). Save an array of text, or leave it out.",
    ),
    "names in a square": (
        lambda f: load_dataset(f.save(class_names=np.array([["a", "b"]]))),
        f"{OWN} text in class_names, found <U1 (1, 2). Save an array of text, or leave it out.",
    ),
    "a name without an end": (
        lambda f: load_dataset(f.save(class_names=np.array(["a" * 1001, *"bcde"]))),
        f"{OWN} at most 100000 texts of 1000 characters in class_names, found <U1001 (5,). Save an array of text, or "
        "leave it out.",
    ),
    "names of no characters": (
        lambda f: load_dataset(f.save(class_names=np.full(5, 0x110000, "<u4").view("<U1"))),
        f"{OWN} text in class_names, found numbers that are no characters. Save an array of text, or leave it out.",
    ),
    "no file": (
        lambda f: load_dataset(f.folder / "missing.npz"),
        "HERE/missing.npz: expected an .npz file, found nothing there. Check the path for a typing error.",
    ),
    "a folder": (
        lambda f: load_images(f.folder, size=6, channels=3),
        "HERE: expected a folder of pictures, found no .png or .jpg or .jpeg in it. Name another.",
    ),
    "a pipe": (
        lambda f: (os.mkfifo(f.path), load_dataset(f.path)),
        f"{OWN} a readable file, found a pipe or a device. Check its kind, owner and permissions.",
    ),
    "no zip": (
        lambda f: (f.path.write_text("not a dataset"), verify(f.path)),
        f"{OWN} an .npz file, which is a zip of arrays, found 13 bytes that are not (no end of a directory). {DAMAGED}",
    ),
    "no array of a name": (
        lambda f: load_dataset(f.save(val_labels=None)),
        f"{OWN} the arrays train_images, train_labels, val_images, val_labels, test_images, test_labels, found no "
        "val_labels (it holds train_images, train_labels, val_images, test_images, test_labels). Save all six with "
        "numpy.savez.",
    ),
    "a disk that cannot be read": (
        while_failing(OSError(5, "Input/output error")),
        f"{OWN} a readable file, found Input/output error. Check the disk.",
    ),
    "no memory": (
        while_failing(MemoryError()),
        f"{OWN} memory for its arrays, found too little. End other programs, or use fewer images.",
    ),
    "written meanwhile": (
        written_meanwhile,
        f"{OWN} a file that stays as it is, found one that changed while it was read. Load it again once nothing "
        "writes to it any more.",
    ),
    "no images to distil on": (
        lambda f: f.images(pictures=np.zeros(3), labels=np.zeros(23)),
        f"{OWN} an array images or train_images, found neither (it holds pictures, labels). Save them with "
        "numpy.savez(path, images=…).",
    ),
    "two arrays of images to distil on": (
        lambda f: f.images(images=np.zeros(3), train_images=np.zeros(3)),
        f"{OWN} one of images and train_images, found both. Save the one you mean in a file of its own.",
    ),
    "a name of nothing": (
        lambda f: f.images(),
        f"{OWN} an array images or train_images, found neither (it holds nothing). Save them with numpy.savez(path, "
        "images=…).",
    ),
    "many other names": (
        lambda f: f.images(**{f"array{k}": np.zeros(1) for k in range(9)}),
        f"{OWN} an array images or train_images, found neither (it holds array0, array1, array2, array3, array4, "
        "array5, array6, array7, …). Save them with numpy.savez(path, images=…).",
    ),
    "Python objects": (
        own(val_labels=lambda a: a["val_labels"].astype(object)),
        f"{OWN} numbers in val_labels, found Python objects (a pickle). Save plain number arrays: pickles are never "
        "loaded, since they can run code.",
    ),
    "an unknown type": (
        header(HEADER.replace("|u1", "<u3"), bytes(21)),
        f"{OWN} intact arrays, found damage (val_labels has the unknown type '<u3'). {DAMAGED}",
    ),
    "fewer values than said": (
        header(HEADER, bytes(6)),
        f"{OWN} 74 bytes in val_labels, found 73. Save the file again with numpy.savez.",
    ),
    "no numpy array": (
        letters,
        f"{OWN} intact arrays, found damage (train_images.npy begins with no magic string of numpy's). {DAMAGED}",
    ),
    "a long header": (
        header(HEADER + " " * 5000),
        f"{OWN} intact arrays, found damage (val_labels.npy has a header of 5057 bytes). {DAMAGED}",
    ),
    "a header that is no dictionary": (header("(7, 1)"), NO_HEADER),
    "a header of other fields": (header(HEADER.replace("shape", "form")), NO_HEADER),
    "a header that lacks a field": (header("{'descr': '|u1', 'shape': (7,)}"), NO_HEADER),
    "a header of no type": (header(HEADER.replace("|u1", "<x4")), NO_HEADER),
    "a header that goes on": (header(HEADER.replace("}", "'order': 'C', }")), NO_HEADER),
    "a field twice": (header(HEADER.replace("}", "'shape': (7,), }")), NO_HEADER),
    "a field of another kind": (header(HEADER.replace("False", "'no'")), NO_HEADER),
    "sizes of letters": (header(HEADER.replace("(7,)", "(L7,)")), NO_HEADER),
    "too many axes": (header(HEADER.replace("(7,)", f"({'1,' * 33})")), NO_HEADER),
    "a size that is no tuple": (header(HEADER.replace("(7,)", "(7)")), NO_HEADER),
    "a negative size": (header(HEADER.replace("(7,)", "(-7,)")), NO_HEADER),
    "a flood": (
        flood,
        f"{OWN} arrays of at most 200 times the size of their file, found SIZE bytes that become 19602786. If that is "
        "what they are meant to hold, save them uncompressed, with numpy.savez.",
    ),
    # fetch
    "a file of the phantom": (
        lambda f: check_size("phantom", 28),
        "Dataset 'phantom' is made on the spot: there is no file to get or check.",
    ),
    "a size that there is not": (
        lambda f: check_size("retinamnist", 32),
        "Dataset 'retinamnist' has no files of size 32; expected one of 28, 64, 128, 224.",
    ),
    "a folder that cannot be made": (
        blocked,
        "HERE/own.npz/root: expected a folder to download retinamnist.npz to, but it cannot be written (Not a "
        "directory). Choose another with --root or the environment variable QVIT_DATA.",
    ),
    "a server that cannot be reached": (
        unreachable,
        "Could not download breastmnist_64.npz: no network. Try again, or get it by hand from "
        "http://there/breastmnist_64.npz?download=1 (MD5 742edef2a1fd1524b2efff4bd7ba9364) and save it as "
        "HERE/breastmnist_64.npz.",
    ),
    # transfer
    "channels that there are not": (
        lambda f: load_images("phantom", size=28, channels=2),
        "Expected channels=1 (grey) or 3 (colour), got 2.",
    ),
    "images to distil on of another size": (
        lambda f: f.images(images=np.zeros((2, 5, 5), np.uint8)),
        f"{OWN} images of 6 x 6 pixels, found 5 x 5. Resize them to 6 x 6, or train the student at 5 pixels.",
    ),
    "images to distil on that are tested on": (
        same,
        "3 of 5 images to distil on are byte-identical to images of own (2 to validation, 1 to test images; the "
        "first is image 2). Distilling on them would leak what the student is measured by: leave them out.",
    ),
    "images to distil on of another shape": (
        other_shape,
        "Expected images to distil on of shape (3, 6, 6), as in own, got (1, 5, 5). Load them with size=6 and "
        "channels=3.",
    ),
    # mixtures
    "mixtures of nothing": (lambda f: mix_images(split(f), 0), "Expected at least 1 image to make, got 0."),
    # augment
    "a group that there is not": (
        lambda f: group_size("d8"),
        "Unknown augmentation group 'd8'. Did you mean 'd4'? Expected one of: none, mirror, d4.",
    ),
    "an element beyond a group": (
        lambda f: apply_element(SQUARES, 2, "mirror"),
        "Group 'mirror' has elements 0 to 1, got 2.",
    ),
    "an element before a group": (
        lambda f: apply_element(SQUARES, -1, "d4"),
        "Group 'd4' has elements 0 to 7, got -1.",
    ),
    "elements beyond a group": (
        lambda f: augment(SQUARES, torch.tensor([3, 8]), "d4"),
        "Group 'd4' has elements 0 to 7, got 3 to 8.",
    ),
    "elements before a group": (
        lambda f: augment(SQUARES, torch.tensor([-1, 0]), "mirror"),
        "Group 'mirror' has elements 0 to 1, got -1 to 0.",
    ),
    "too many elements": (
        lambda f: augment(SQUARES, torch.tensor([0, 1, 2]), "d4"),
        "Expected one element for each of 2 images, got elements of shape (3,).",
    ),
    "one image alone": (
        lambda f: apply_element(SQUARES[0, 0], 0, "none"),
        "Expected a batch of images (b, c, h, w), got shape (4, 4).",
    ),
    "turns of what is not square": (
        lambda f: augment(PICTURES, torch.tensor([0, 1]), "d4"),
        "Group 'd4' turns images by 90 degrees and so needs square ones, got 4 x 6; crop them, or use 'mirror' or "
        "'none'.",
    ),
    # phantom
    "an odd phantom": (
        lambda f: load_dataset("phantom", 29),
        "phantom: expected an even size of at least 28 pixels, got 29; try 28 or 64.",
    ),
    "a small phantom": (
        lambda f: make_phantom(size=26),
        "phantom: expected an even size of at least 28 pixels, got 26; try 28 or 64.",
    ),
    "a phantom of no seed": (lambda f: make_phantom(-1), "phantom: expected a seed of 0 or more, got -1."),
    "too few groups": (
        lambda f: load_dataset(
            f.save(**{f"{split}_groups": np.array(["a"] * n) for split, n in (("train", 23), ("val", 6))})
        ),
        f"{OWN} 7 groups in val_groups, found 6. Save one group for each image, in the same order.",
    ),
    "a column of a folder": (
        lambda f: load_dataset(f.folder, importing=ImportOptions(label="sex")),
        "label='sex' is a column of a table; the classes of HERE are its folders.",
    ),
    # registry
    "a dataset that there is not": (
        lambda f: get_info("RetinMNIST"),
        "Unknown dataset 'RetinMNIST'. Did you mean 'retinamnist'? Expected one of: pathmnist, chestmnist, "
        "dermamnist, octmnist, pneumoniamnist, retinamnist, breastmnist, bloodmnist, tissuemnist, organamnist, "
        "organcmnist, organsmnist, phantom; or the path of a folder or table of pictures, or .npz file.",
    ),
}


@cache
def places(name: str) -> dict[int, str]:
    """Return the lines of a module's `raise`s, each by all the lines that it covers, and what is raised."""
    source = Path(str(importlib.import_module(f"qvit.data.{name}").__file__)).read_text()
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    return {
        line: f"{name}.py, line {node.lineno}: {ast.unparse(node)[:60]}"
        for node in found
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def raised_at(error: BaseException | None) -> Iterator[str]:
    """Yield where an error was raised, and those that it came of."""
    while error is not None:
        inner = [frame for frame in traceback.extract_tb(error.__traceback__) if "/qvit/data/" in frame.filename]
        for frame in inner[-1:]:
            if (name := Path(frame.filename).stem) in MODULES:
                yield places(name).get(frame.lineno or 0, "")
        error = error.__cause__


def refusal(case: str, folder: Path, patch: pytest.MonkeyPatch) -> BaseException:
    files = Files(folder, patch)
    patch.delenv("QVIT_DATA", raising=False)
    with pytest.raises((QvitError, IndexError)) as caught:
        REFUSALS[case][0](files)
    return caught.value


@pytest.mark.long
def test_each_refusal_in_the_code_is_told_in_one_line(tmp_path: Path) -> None:
    told: dict[str, str] = {}
    reached: set[str] = set()
    for number, case in enumerate(REFUSALS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            error = refusal(case, folder, patch)
        reached.update(raised_at(error))
        told[case] = str(error).replace(str(folder), "HERE")
        if case == "a flood":  # what compressing makes of it is zlib's
            told[case] = told[case].replace(str((folder / "own.npz").stat().st_size), "SIZE")
    assert told == {case: line for case, (_, line) in REFUSALS.items()}
    assert {place for name in MODULES for place in places(name).values()} - reached == set()
