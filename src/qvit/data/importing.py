"""Turn listed pictures into one checked .npz file: on all cores, in bounded memory, going on where it was stopped.

Nothing else of the pictures is kept: no headers, no names of people, no absolute paths. Groups are salted hashes.
"""

import hashlib
import json
import os
import secrets
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray

from qvit.data.blocks import Block, Progress, Read, read_blocks
from qvit.data.listing import Listing
from qvit.data.npz import problem
from qvit.data.options import ImportOptions
from qvit.data.packing import Packer
from qvit.data.registry import SPLITS
from qvit.data.splitting import split_images
from qvit.files import PART, shown, sole_user, written_whole

VERSION = 1  # of the rules by which pictures become arrays: another one makes new files
SHOWN = 5  # files that a message names
_LUMA = np.array((299, 587, 114))  # thousandths: ITU-R BT.601

Places = Mapping[str, Int64[np.ndarray, " m"]]
Stamps = list[tuple[int, int] | None]  # size and time of each file, None for a missing one


@dataclass(frozen=True)
class _Images:
    """All images in the order of the listing: the position of the file each came from, its labels, its group."""

    file: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, "n k"]
    groups: Shaped[np.ndarray, " n"] | None


def stamps_of(listing: Listing) -> Stamps:
    """Return size and time of each file: pictures are imported anew if one of them changed."""
    return [_stamp(listing.folder / file) for file in listing.files]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - of a hundred thousand files
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def key_of(listing: Listing, stamps: Stamps, *, size: int, options: ImportOptions) -> str:
    """Return a digest of all that an import depends on: 24 hexadecimal digits."""
    nothing = [None] * len(listing.files)
    said = {
        "version": VERSION,
        "size": size,
        "options": asdict(options),
        "classes": listing.classes,
        "files": listing.files,
        "labels": listing.labels.tolist(),
        "sides": listing.sides or nothing,
        "groups": listing.groups or nothing,
        "stamps": stamps,
    }
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=12).hexdigest()


def import_pictures(
    listing: Listing,
    target: Path,
    *,
    size: int,
    options: ImportOptions,
    progress: Progress | None = None,
) -> None:
    """Read, resize, split and write all pictures into the .npz file `target`, images of `size` pixels square.

    A picture is cut or padded to a square and then averaged over areas, or enlarged by cubic interpolation. What was
    read is kept beside `target` until the file is complete, so that an interrupted import goes on. Warns of files
    that were left out, of images with burnt-in text, and if pictures are split at random without known groups.

    Raises DataError if more than `options.max_bad` files cannot be read, if colour and grey are mixed, if a class is
    missing on a side, or if a file changes meanwhile; RunError if `target` cannot be written.
    """
    stamps = stamps_of(listing)
    key = key_of(listing, stamps, size=size, options=options)
    kept = target.with_name(f".{target.stem[:40]}-{key}{PART}")
    kept.mkdir(parents=True, exist_ok=True)
    with sole_user(kept):
        blocks = read_blocks(
            listing.folder,
            listing.files,
            kept,
            size=size,
            options=options,
            lengths=[0 if stamp is None else stamp[0] for stamp in stamps],
            enough=options.max_bad + SHOWN,
            progress=progress,
        )
        reads = [read for block in blocks for read in block.reads]
        _check_readable(listing, reads, options)
        images = _arrange(listing, reads)
        places = _places(listing, images, options)
        channels = _channels(listing, reads, options)
        if stamps_of(listing) != stamps:
            shutil.rmtree(kept, ignore_errors=True)
            advice = "Import it again once nothing writes to it any more."
            raise problem(listing.folder, "files that stay as they are", "one that changed while it was read", advice)
        _warn(listing, reads)
        with written_whole(target) as file, Packer(file) as packer:
            _pack(packer, listing, blocks, images, places, (size, size, 3)[: 3 if channels == 3 else 2])
            packer.add("class_names", np.array(listing.classes))
    shutil.rmtree(kept, ignore_errors=True)


def shown_on_terminal(label: str) -> Progress | None:
    """Return a callback that shows on stderr how many pictures are done; None if that is no terminal."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{label}: {done:,} of {total:,} pictures" + ("\n" if done == total else ""))
        sys.stderr.flush()

    return show


def _bad(reads: Sequence[Read]) -> list[Read]:
    return [read for read in reads if read.why is not None]


def _told(listing: Listing, bad: Sequence[Read]) -> str:
    named = [f"{shown(listing.files[read.file])}: {read.why}" for read in bad[:SHOWN]]
    return "; ".join(named + ["…"] * (len(bad) > SHOWN))


def _check_readable(listing: Listing, reads: Sequence[Read], options: ImportOptions) -> None:
    bad, count = _bad(reads), len(listing.files)
    if len(bad) == count:
        raise problem(
            listing.folder, "pictures that can be read", f"none ({_told(listing, bad)})", "Check their format."
        )
    if len(bad) > options.max_bad:
        expected = f"at most {options.max_bad} files that cannot be read" if options.max_bad else "readable pictures"
        more = "" if len(reads) == count else "at least "
        found = f"{more}{len(bad)} of {count} that cannot be read ({_told(listing, bad)})"
        raise problem(listing.folder, expected, found, "Repair or remove them, or leave so many out with max_bad.")


def _warn(listing: Listing, reads: Sequence[Read]) -> None:
    bad = _bad(reads)
    if bad:
        text = f"{listing.folder}: {len(bad)} of {len(listing.files)} files were left out ({_told(listing, bad)})."
        warnings.warn(text, stacklevel=3)
    for warning, count in Counter(told for read in reads for told in read.warnings).items():
        warnings.warn(f"{listing.folder}: {count} file(s): {warning}", stacklevel=3)


def _arrange(listing: Listing, reads: Sequence[Read]) -> _Images:
    good = [read for read in reads if read.why is None]
    file = np.repeat([read.file for read in good], [read.images for read in good]).astype(np.int64)
    groups = None
    if listing.groups is not None:
        groups = np.array(listing.groups)[file]
    elif all(read.group for read in good):  # DICOM's patients
        groups = np.repeat([str(read.group) for read in good], [read.images for read in good])
    elif len(file) > len(good):  # the frames of a file belong together
        groups = file.astype(np.str_)
    return _Images(file, listing.labels[file], groups)


def _places(listing: Listing, images: _Images, options: ImportOptions) -> Places:
    """Return the positions of the images of each split."""
    shares = dict(zip(SPLITS, options.shares, strict=True))
    if listing.sides is None:
        if images.groups is None:
            warnings.warn(
                f"{listing.folder}: split at random, image by image, as groups are not known: images of one patient "
                "may stand in two splits. Name a column of a table, or a pattern for paths, with group_by.",
                stacklevel=3,
            )
        return split_images(images.labels, images.groups, shares=shares, seed=options.split_seed)
    sides = np.array(listing.sides)[images.file]
    places = {side: np.flatnonzero(sides == side) for side in SPLITS}
    if not len(places["val"]):
        train = places["train"]
        divided = split_images(
            images.labels[train],
            None if images.groups is None else images.groups[train],
            shares={side: shares[side] / (shares["train"] + shares["val"]) for side in ("train", "val")},
            seed=options.split_seed,
        )
        places |= {side: train[part] for side, part in divided.items()}
    _check_places(listing, images, places)
    return places


def _check_places(listing: Listing, images: _Images, places: Places) -> None:
    for side, place in places.items():
        if not len(place):
            advice = "Put some there, or leave the division to qvit: FOLDER/CLASS/*."
            raise problem(listing.folder, f"pictures in {side}", "none that can be read", advice)
    if listing.multi_label:
        return
    for number, name in enumerate(listing.classes):
        present = [side for side, place in places.items() if (images.labels[place] == number).any()]
        if present and (len(present) == 1 or "train" not in present):
            found = f"'{shown(name)}' in {' and '.join(present)} alone"
            raise problem(listing.folder, "each class in train and in another split", found, "Divide it among them.")


def _channels(listing: Listing, reads: Sequence[Read], options: ImportOptions) -> int:
    """Return how many channels all images have."""
    if options.channels != "auto":
        return 1 if options.channels == "grey" else 3
    grey, rgb = ([read for read in reads if read.images and read.colour == colour] for colour in ("grey", "rgb"))
    if grey and rgb:
        found = f"{len(grey)} grey ({shown(listing.files[grey[0].file])}, …), {len(rgb)} in colour "
        found += f"({shown(listing.files[rgb[0].file])}, …)"
        raise problem(listing.folder, "one kind of pictures", found, "Choose channels=grey or channels=rgb.")
    return 3 if rgb else 1


def _pack(
    packer: Packer,
    listing: Listing,
    blocks: Sequence[Block],
    images: _Images,
    places: Places,
    shape: tuple[int, ...],
) -> None:
    salt = secrets.token_bytes(16)
    for name in SPLITS:
        place = places[name]
        chosen = np.zeros(len(images.file), bool)
        chosen[place] = True
        sources = [listing.files[file] for file in images.file[place]]
        groups = None
        if images.groups is not None:
            named = images.groups[place].tolist()
            groups = [_hashed(group, salt) for group in named]
            sources = [_without(*row) for row in zip(sources, named, groups, strict=True)]
        packer.add_split(
            name,
            _chosen(blocks, chosen, grey=len(shape) == 2),
            images.labels[place],
            shape=(len(place), *shape),
            sources=sources,
            groups=groups,
        )


def _chosen(blocks: Sequence[Block], chosen: NDArray[np.bool_], *, grey: bool) -> Iterator[NDArray[np.uint8]]:
    start = 0
    for block in blocks:
        here = chosen[start : start + sum(read.images for read in block.reads)]
        start += len(here)
        if here.any():
            pixels = block.pixels()[here]
            yield _luma(pixels) if grey else pixels


def _luma(pixels: UInt8[np.ndarray, "m s s 3"]) -> UInt8[np.ndarray, "m s s"]:
    """Return the luma, rounded; a grey picture stays what it is."""
    return ((pixels @ _LUMA + 500) // 1000).astype(np.uint8)


def _hashed(group: str, salt: bytes) -> str:
    return hashlib.blake2b(group.encode(), key=salt, digest_size=8).hexdigest()


def _without(source: str, group: str, hashed: str) -> str:
    """Return a path in which the group's name, which may be a person's, is replaced by its hash."""
    return source.replace(group, hashed) if len(group) > 2 else source
