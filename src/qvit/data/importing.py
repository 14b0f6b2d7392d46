"""Turn listed pictures into one checked .npz file: on all cores, in bounded memory, going on where it was stopped.

Nothing else of the pictures is kept: no headers, no names of people, no absolute paths. Groups are salted hashes.
"""

import hashlib
import json
import os
import secrets
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray

from qvit.data.anonymous import below, hashed, without
from qvit.data.blocks import Block, Progress, Read, Stamp, read_blocks
from qvit.data.listing import Listing
from qvit.data.npz import problem
from qvit.data.options import ImportOptions
from qvit.data.packing import Packer
from qvit.data.pictures import luma
from qvit.data.registry import SPLITS
from qvit.data.splitting import split_images
from qvit.errors import RunError
from qvit.files import PART, shown, sole_user, written_whole

VERSION = 2  # of the rules by which pictures become arrays: another one makes new files
SHOWN = 5  # files that a message names
FORGOTTEN = 7 * 24 * 3600  # seconds after which what an interrupted import has left is deleted
DEPTHS = (8, 10, 12, 14)  # bits that cameras and scanners have, of pictures stored with 16

Places = Mapping[str, Int64[np.ndarray, " _"]]
Stamps = list[Stamp]


@dataclass(frozen=True)
class _Images:
    """All images in the order of the listing: the position of the file each came from, its labels, its group.

    Images of one file are a group in any case; `known` says whether groups are more than that, such as patients.
    """

    file: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, "n k"]
    groups: Shaped[np.ndarray, " n"] | None
    known: bool


def stamps_of(listing: Listing) -> Stamps:
    """Return size and time of each file: pictures are imported anew if one of them changed."""
    folder = f"{listing.folder}/"
    return [_stamp(file if os.path.isabs(file) else folder + file) for file in listing.files]  # noqa: PTH117


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116 - of a hundred thousand files, so no Path either
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
    read is kept beside `target`, for its owner alone, until the file is complete, so that an interrupted import, or a
    refused one after other options were chosen, goes on. Warns of files that were left out, of images with burnt-in
    text, of groups in several of the given splits, and if pictures are split at random without known groups.

    Raises DataError if more than `options.max_bad` files cannot be read, if colour and grey are mixed, if a class is
    missing on a side, or if a file changes meanwhile; RunError if `target` cannot be written.
    """
    with _reading(listing, target, size=size, options=options, progress=progress) as (blocks, reads):
        images = _arrange(listing, reads)
        places = _places(listing, images, options)
        shape = _shape(listing, reads, size, options)
        with written_whole(target) as file, Packer(file) as packer:
            _pack(packer, listing, blocks, images, places, shape)
            packer.add("class_names", np.array(listing.classes))


def import_unlabelled(listing: Listing, target: Path, *, size: int, options: ImportOptions) -> None:
    """Write all pictures of a listing into the .npz file `target` as one array `images`; labels and splits are ignored.

    Warns and raises as `import_pictures` does, but for what concerns labels, groups and splits.
    """
    with _reading(listing, target, size=size, options=options, progress=None) as (blocks, reads):
        shape = _shape(listing, reads, size, options)
        chosen = np.ones(sum(read.images for read in reads), bool)
        with written_whole(target) as file, Packer(file) as packer:
            packer.add_images("images", _chosen(blocks, chosen, grey=len(shape) == 2), (len(chosen), *shape))


@contextmanager
def _reading(
    listing: Listing, target: Path, *, size: int, options: ImportOptions, progress: Progress | None
) -> Iterator[tuple[list[Block], list[Read]]]:
    """Read all pictures into blocks that are there while `target` is written from them, and deleted afterwards."""
    stamps = stamps_of(listing)
    target.parent.mkdir(parents=True, exist_ok=True)
    _forget(target.parent)
    kept = target.with_name(f".import-{_key_of_blocks(listing, size, options)}{PART}")
    kept.mkdir(mode=0o700, exist_ok=True)
    with sole_user(kept):
        blocks = read_blocks(
            listing.folder,
            listing.files,
            stamps,
            kept,
            size=size,
            options=options,
            enough=options.max_bad + SHOWN,
            progress=progress,
        )
        reads = [read for block in blocks for read in block.reads]
        _check_readable(listing, reads, options)
        if stamps_of(listing) != stamps:
            shutil.rmtree(kept, ignore_errors=True)
            advice = "Import it again once nothing writes to it any more."
            raise problem(listing.folder, "files that stay as they are", "one that changed while it was read", advice)
        yield blocks, reads
        _warn(listing, reads, options)
    shutil.rmtree(kept, ignore_errors=True)


def shown_on_terminal(label: str) -> Progress | None:
    """Return a callback that shows on stderr how many pictures are done; None if that is no terminal."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{label}: {done:,} of {total:,} pictures" + ("\n" if done == total else ""))
        sys.stderr.flush()

    return show


def _key_of_blocks(listing: Listing, size: int, options: ImportOptions) -> str:
    """Return a digest of what pixels depend on, files aside: 24 hexadecimal digits."""
    said = [VERSION, os.path.realpath(listing.folder), size, options.fit, options.frames, options.bits]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()


def _forget(folder: Path) -> None:
    """Delete what imports have left that were interrupted long ago."""
    for kept in folder.glob(f".import-*{PART}"):
        with suppress(OSError, RunError):
            if time.time() - kept.stat().st_mtime > FORGOTTEN:
                with sole_user(kept):
                    shutil.rmtree(kept, ignore_errors=True)


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
        raise problem(
            listing.folder,
            expected,
            found,
            "Repair or remove them, or leave so many out with --max-bad (in Python max_bad).",
        )


def _warn(listing: Listing, reads: Sequence[Read], options: ImportOptions) -> None:
    told = [
        f"{count} file(s): {text}" for text, count in Counter(each for read in reads for each in read.warnings).items()
    ]
    bad = _bad(reads)
    if bad:
        told.append(f"{len(bad)} of {len(listing.files)} files were left out ({_told(listing, bad)}).")
    if listing.left_out:
        counts = ", ".join(f"{count} {shown(ending)}" for ending, count in listing.left_out[:SHOWN])
        told.append(f"files of these kinds are no pictures that can be read, and were left out: {counts}.")
    highest = max((read.highest for read in reads if read.highest is not None), default=0)
    depth = next((bits for bits in DEPTHS if 0 < highest < 2**bits), None)
    if options.bits == 16 and depth is not None:
        told.append(
            f"pictures with 16 bits use no value above {highest} of 65535, so that all are dark. If they have {depth} "
            f"bits, say so: --set bits={depth} (in Python bits={depth})."
        )
    for text in told:
        warnings.warn(f"{listing.folder}: {text}", stacklevel=3)


def _arrange(listing: Listing, reads: Sequence[Read]) -> _Images:
    good = [read for read in reads if read.why is None]
    counts = [read.images for read in good]
    file = np.repeat([read.file for read in good], counts).astype(np.int64)
    known, groups = True, None
    if listing.groups is not None:
        groups = np.array(listing.groups)[file]
    elif any(read.group for read in good):  # DICOM's patients
        unknown = sum(not read.group for read in good)
        if unknown:
            text = f"{unknown} of {len(good)} files name no patient (PatientID): each counts as a patient of its own."
            warnings.warn(f"{listing.folder}: {text}", stacklevel=3)
        groups = np.repeat([read.group or f"\n{read.file}" for read in good], counts)
    else:
        known = False
        groups = file.astype(np.str_) if len(file) > len(good) else None
    return _Images(file, listing.labels[file], groups, known)


def _places(listing: Listing, images: _Images, options: ImportOptions) -> Places:
    """Return the positions of the images of each split."""
    shares = dict(zip(SPLITS, options.shares, strict=True))
    if listing.sides is None:
        if not images.known:
            warnings.warn(
                f"{listing.folder}: split at random, image by image, as groups are not known: images of one patient "
                "may stand in two splits. Name a column of a table, or a pattern for paths, with --group-by (in Python "
                "group_by).",
                stacklevel=3,
            )
        return _split(listing, images, np.arange(len(images.file)), shares, options)
    sides = np.array(listing.sides)[images.file]
    places = {side: np.flatnonzero(sides == side) for side in SPLITS}
    if not len(places["val"]):
        two = {side: shares[side] / (shares["train"] + shares["val"]) for side in ("train", "val")}
        places |= _split(listing, images, places["train"], two, options)
    _check_places(listing, images, places)
    _warn_of_shared(listing, images, places)
    return places


def _split(
    listing: Listing,
    images: _Images,
    chosen: Int64[np.ndarray, " c"],
    shares: Mapping[str, float],
    options: ImportOptions,
) -> Places:
    """Divide the chosen images at random, and return the positions of each part."""
    groups = None if images.groups is None else images.groups[chosen]
    count = len(chosen) if groups is None else len(np.unique(groups))
    if count < len(shares):
        kind = "pictures" if groups is None else "groups"
        advice = "Add some." if groups is None else "Group by something else; --group-by '.*' makes each file a group."
        raise problem(listing.folder, f"at least {len(shares)} {kind}, one for each split", f"{count}", advice)
    found = split_images(images.labels[chosen], groups, shares=shares, seed=options.split_seed, called=listing.classes)
    return {side: chosen[part] for side, part in found.items()}


def _warn_of_shared(listing: Listing, images: _Images, places: Places) -> None:
    if images.groups is None:
        return
    sides: dict[str, dict[str, int]] = {}  # for each group, one of its images in each split
    for side, place in places.items():
        for group, image in zip(images.groups[place].tolist(), place.tolist(), strict=True):
            sides.setdefault(group, {}).setdefault(side, image)
    shared = [found for found in sides.values() if len(found) > 1]
    if shared:
        named = " and ".join(
            f"{shown(listing.files[images.file[image]])} ({side})" for side, image in shared[0].items()
        )
        warnings.warn(
            f"{listing.folder}: {len(shared)} of {len(sides)} groups stand in several of the given splits, such as "
            f"that of {named}: a model will look better than it is. Leave the splits out to keep groups together.",
            stacklevel=3,
        )


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


def _shape(listing: Listing, reads: Sequence[Read], size: int, options: ImportOptions) -> tuple[int, ...]:
    """Return the shape of each image: `(s, s)` if all are grey, `(s, s, 3)` if all have colours."""
    if options.channels != "auto":
        return (size, size) if options.channels == "grey" else (size, size, 3)
    grey, rgb = ([read for read in reads if read.images and read.colour == colour] for colour in ("grey", "rgb"))
    if grey and rgb:
        found = f"{len(grey)} grey ({shown(listing.files[grey[0].file])}, …), {len(rgb)} in colour "
        found += f"({shown(listing.files[rgb[0].file])}, …)"
        advice = "Choose --channels grey or rgb (in Python channels=…)."
        raise problem(listing.folder, "one kind of pictures", found, advice)
    return (size, size, 3) if rgb else (size, size)


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
        sources = [below(listing.folder, listing.files[file]) for file in images.file[place]]
        groups = None
        if images.groups is not None and images.known:
            named = images.groups[place].tolist()
            groups = [hashed(group, salt) for group in named]
            sources = [without(*row) for row in zip(sources, named, groups, strict=True)]
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
            yield luma(pixels) if grey else pixels
