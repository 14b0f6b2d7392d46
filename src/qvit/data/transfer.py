"""Unlabelled images to distil on (a transfer set), and the check that no student is tested on them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.data.checks import bytes_of_floats, image_layout
from qvit.data.listing import list_unlabelled
from qvit.data.mapped import map_array
from qvit.data.npz import check_unchanged, find_header, given_path, md5_of, problem, read_array, stamp_of
from qvit.data.options import MOST_BAD, ImportOptions, check_side
from qvit.data.pictures import LUMA
from qvit.data.registry import is_path
from qvit.data.source import MAP_ABOVE, channels_first, import_file, unpack_folder, view_channels_first
from qvit.errors import ConfigError, DataError

KEYS = ("images", "train_images")
UNLABELLED = -1

Images = UInt8[np.ndarray, "n c h w"]


def load_images(
    name: str | Path,
    *,
    size: int,
    channels: int,
    root: str | Path | None = None,
    download: bool = True,
) -> tuple[Split, str]:
    """Load images to distil on, all labels −1 `(n, 1)`, and a digest that identifies them.

    `name` is a dataset's name in the registry, whose training images are taken, or the path of an .npz file with an
    array `images` or `train_images`, `(n, s, s)` or `(n, s, s, c)`, of bytes or of numbers in [0, 1], which are rounded
    to bytes; other arrays in it are ignored. Or it is the path of a folder, of which all pictures at any depth are
    taken that can be read, made squares as those of datasets are. `size` is the side in pixels that the images must
    have, `channels` the number that they shall have: grey is repeated to three, colours become grey by the luma of
    ITU-R BT.601, rounded.
    `root` and `download` are those of `load_dataset`, and large files are memory-mapped as there, unless colours have
    to become grey.

    The digest is BLAKE2b of the shape and bytes of the images that are returned.
    Raises ConfigError for an unknown name, a size that the dataset lacks, or channels other than 1 and 3; DataError for
    a file that is missing or invalid, and for images of another size.
    """
    if channels not in (1, 3):
        raise ConfigError(f"Expected channels=1 (grey) or 3 (colour), got {channels}.")
    if is_path(name):
        path = given_path(name)
        images = _load_own(_imported(path, size, channels, root) if os.path.isdir(path) else path, size, root)  # noqa: PTH112
    else:
        images = load_dataset(str(name), size, root, download).train.images
    adapted = _adapted(images, channels)
    split = Split(adapted, np.full((len(adapted), 1), UNLABELLED, np.int64))
    digest = hashlib.blake2b(repr(adapted.shape).encode(), digest_size=16)
    for _, part in split.parts():
        digest.update(np.ascontiguousarray(part).data)
    return split, digest.hexdigest()


def _imported(folder: Path, size: int, channels: int, root: str | Path | None) -> Path:
    """Return the .npz file made of the pictures in a folder; it is made if it is not there yet."""
    from qvit.data.importing import import_unlabelled

    check_side(size)
    listing = list_unlabelled(folder)
    options = ImportOptions(channels="grey" if channels == 1 else "rgb", max_bad=min(len(listing.files), MOST_BAD))
    target = import_file(listing, folder, size, root, options)
    if not target.exists():
        import_unlabelled(listing, target, size=size, options=options)
    return target


def _load_own(path: Path, size: int, root: str | Path | None) -> Images:
    stamp = stamp_of(path)
    member = find_header(path, KEYS)
    layout = image_layout(path, member)
    if layout.size != size:
        advice = f"Resize them to {size} x {size}, or train the student at {layout.size} pixels."
        raise problem(path, f"{member.key} of {size} x {size} pixels", f"{layout.size} x {layout.size}", advice)
    if layout.floating:
        images = bytes_of_floats(path, member)
    elif member.size > MAP_ABOVE:
        images = map_array(path, member, unpack_folder(path, md5_of(path), root))
    else:
        images = read_array(path, member)
    check_unchanged(path, stamp)
    return view_channels_first(images) if isinstance(images, np.memmap) else channels_first(images)


def _adapted(images: Images, channels: int) -> UInt8[np.ndarray, "n k h w"]:
    """Return the images with the given number of channels."""
    n, have, *sides = images.shape
    if have == channels:
        return images
    if have == 1:
        repeated = np.broadcast_to(images, (n, channels, *sides), subok=True)  # a view: nothing mapped is read
        return repeated if isinstance(images, np.memmap) else np.ascontiguousarray(repeated)
    grey = np.empty((n, 1, *sides), np.uint8)
    for start, rows in Split(images, np.zeros((n, 1), np.int64)).parts():
        weighted = np.einsum("nchw,c->nhw", rows, np.array(LUMA, np.uint32), dtype=np.uint32)
        grey[start : start + len(rows), 0] = (weighted + 500) // 1000
    return grey


def _hashes(split: Split) -> Iterator[bytes]:
    for _, rows in split.parts():
        for image in np.ascontiguousarray(rows):
            yield hashlib.blake2b(image, digest_size=16).digest()


def check_disjoint(transfer: Split, data: Dataset) -> None:
    """Raise DataError if images to distil on are byte-identical to validation or test images of the dataset.

    A student that learns a teacher's answers to such images would be selected or judged by what it was taught. Images
    that are also training images are allowed: everything trained on the dataset sees them anyway. Images are compared
    as they are given, after any conversion of channels. Raises DataError also for images of another shape.
    """
    ours, theirs = transfer.images.shape[1:], data.train.images.shape[1:]
    if ours != theirs:
        raise DataError(
            f"Expected images to distil on of shape {theirs}, as in {data.info.name}, got {ours}. Load them with "
            f"size={theirs[-1]} and channels={theirs[0]}."
        )
    held = {split: set(_hashes(data[split])) for split in ("val", "test")}
    unseen = held["val"] | held["test"]
    leaks = [(place, key) for place, key in enumerate(_hashes(transfer)) if key in unseen]
    if leaks:  # rare, so the many training images are rarely read
        trained = set(_hashes(data.train))
        leaks = [(place, key) for place, key in leaks if key not in trained]
    if leaks:
        val, test = (sum(key in held[split] for _, key in leaks) for split in ("val", "test"))
        raise DataError(
            f"{len(leaks)} of {len(transfer)} images to distil on are byte-identical to images of {data.info.name} "
            f"({val} to validation, {test} to test images; the first is image {leaks[0][0]}). Distilling on them would "
            "leak what the student is measured by: leave them out."
        )
