"""Teacher outputs, computed once for every image under every symmetry, kept on disk, and read as they are needed.

A folder, named by a hash of everything the outputs depend on, holds one memory-mapped .npy file per output and
`cache.json` with a checksum of each. It appears whole or not at all; a folder damaged later is noticed and computed
again.
"""

import hashlib
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from pydantic import with_config
from torch import Tensor
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

import qvit
from qvit.data.arrays import Split
from qvit.data.augment import apply_element, group_size
from qvit.data.fetch import user_cache
from qvit.distill.outputs import Outputs
from qvit.distill.teacher import Teacher
from qvit.documents import one_line, read_json
from qvit.errors import FileError, RunError
from qvit.files import PART, open_regular
from qvit.training.batches import Batch
from qvit.training.stored import STRICT, checked

FORMAT = 1
LARGEST = 1 << 16  # bytes of cache.json
VIEWS = 512  # transformed images that the teacher sees at a time
MIN_DEVIATION = 1e-6  # of a feature that varies
ABANDONED = 24 * 3600  # seconds after which an unfinished folder is deleted
OnViews = Callable[[int, int], None]


@with_config(STRICT)
class CacheFile(TypedDict):
    """The contents of cache.json: the key of the outputs beside it, and their checksums."""

    key: str
    checksums: dict[str, str]


class CacheWarning(UserWarning):
    """A cache of teacher outputs was damaged and is computed again."""


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """A teacher's outputs for `n` images under the `g` elements of a symmetry group, as tensors read from disk.

    `key` identifies all that they depend on. They are never changed, so copies share them.
    """

    logits: Float[Tensor, "g n c"]
    features: Float[Tensor, "g n f"] | None = None
    attention: Float[Tensor, "g n y x"] | None = None
    key: str = ""

    def __deepcopy__(self, memo: object) -> "TeacherOutputs":
        """Return these outputs."""
        return self

    @cached_property
    def statistics(self) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Mean and deviation of each feature over all views of all images; constant features have deviation 1."""
        assert self.features is not None
        return _statistics(self.features)

    def of(self, batch: Batch) -> Outputs:
        """Return the teacher's outputs for the images of a batch, as they were transformed, on their device.

        For the batches of a stack, those of each of its models.
        """

        def read(table: Tensor) -> Tensor:
            return table[batch.elements, batch.index].to(batch.images.device)

        return Outputs(
            read(self.logits),
            None if self.features is None else read(self.features),
            None if self.attention is None else read(self.attention),
        )


def _statistics(features: Float[Tensor, "g n f"]) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
    """Return mean and deviation of each feature, summed in double precision."""
    total = sum(part.double().sum(dim=0) for part in features)
    mean = total / (features.shape[0] * features.shape[1])
    square = sum((part.double() - mean).square().sum(dim=0) for part in features)
    deviation = (square / (features.shape[0] * features.shape[1])).sqrt()
    return mean.float(), torch.where(deviation > MIN_DEVIATION, deviation, 1.0).float()


def cache_folder() -> Path:
    """Return the default folder of teacher outputs."""
    return user_cache() / "teachers"


def teacher_outputs(
    teacher: Teacher,
    split: Split,
    *,
    images_digest: str,
    group: str,
    features: bool = False,
    attention: bool = False,
    folder: Path | None = None,
    on_views: OnViews | None = None,
) -> TeacherOutputs:
    """Return a teacher's outputs for a split under every element of a symmetry group, from the cache if possible.

    `images_digest` identifies the images. `on_views(done, all)` is called while outputs are computed. Raises `RunError`
    if `folder` cannot be written.
    """
    wanted = ["logits"] + ["features"] * features + ["attention"] * attention
    key = _key(teacher, images_digest, len(split), group, wanted)
    place = (folder or cache_folder()) / key[:32]
    shape = (group_size(group), len(split))
    found = _read(place, key, wanted, shape)
    if found is None:
        _make(place, key, teacher, split, group, wanted, on_views)
        found = _read(place, key, wanted, shape)
        if found is None:
            raise RunError(f"Teacher outputs in {place} changed while they were written; check the disk.")
    return TeacherOutputs(**found, key=key)


def _key(teacher: Teacher, images: str, count: int, group: str, wanted: list[str]) -> str:
    determines = {
        "format": FORMAT,
        "qvit": qvit.__version__,
        "teacher": teacher.digest,
        "images": images,
        "count": count,
        "group": group,
        "outputs": wanted,
    }
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()


def _read(place: Path, key: str, wanted: list[str], shape: tuple[int, int]) -> dict[str, Tensor] | None:
    """Return the tensors of an intact cache, or None; a damaged one is deleted, with a warning.

    `shape` holds the first two sizes of their shapes.
    """
    if not place.exists():
        return None
    try:
        said = checked(read_json(place / "cache.json", most=LARGEST), CacheFile, "cache.json")
        if said["key"] != key:
            raise ValueError("it belongs to another teacher or other images")
        for name in wanted:
            if _checksum(place / f"{name}.npy") != said["checksums"].get(name):
                raise ValueError(f"{name}.npy has other contents than were written")
        return {name: _mapped(place / f"{name}.npy", shape) for name in wanted}
    except (FileError, OSError, ValueError, TypeError, SyntaxError, TokenError, MemoryError) as error:
        # TypeError and those after it: numpy's reading of a header can raise them all.
        message = f"The teacher outputs in {place} are damaged ({one_line(error)}); they are computed again."
        warnings.warn(message, CacheWarning, stacklevel=3)
        with suppress(OSError):  # if it cannot be moved, nothing can be written either, and writing will raise
            _set_aside(place)
        return None


def _mapped(path: Path, shape: tuple[int, int]) -> Tensor:
    """Return a table mapped copy-on-write, since torch has no read-only tensors."""
    table = np.load(path, mmap_mode="c")
    if table.dtype != np.float32 or table.shape[:2] != shape:
        raise ValueError(f"{path.name} is a table of {table.dtype} {table.shape}")
    return torch.from_numpy(table)


def _checksum(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _make(
    place: Path, key: str, teacher: Teacher, split: Split, group: str, wanted: list[str], on_views: OnViews | None
) -> None:
    """Compute the outputs into a folder beside `place`, then move it there."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=PART, dir=place.parent))
        try:
            _compute(unfinished, teacher, split, group, wanted, on_views)
            checksums = {name: _checksum(unfinished / f"{name}.npy") for name in wanted}
            said = {"key": key, "teacher": teacher.name, "group": group, "images": len(split), "checksums": checksums}
            (unfinished / "cache.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            _put(unfinished, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"Cannot write teacher outputs to {place.parent}: {error.strerror or error}. Free some space, or choose "
            "another folder with --cache."
        ) from error


def _set_aside(place: Path) -> None:
    """Move a damaged cache away and delete it, so that an intact one by another process is not deleted."""
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=PART, dir=place.parent))
    try:
        place.replace(aside / "damaged")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put(unfinished: Path, place: Path) -> None:
    """Move a folder to its place, unless another process was first and may be reading there."""
    try:
        unfinished.replace(place)
    except OSError:
        if not place.exists():
            raise


def _sweep(folder: Path) -> None:
    """Delete folders that killed processes left behind long ago."""
    for leftover in folder.glob(f".*{PART}"):
        with suppress(FileNotFoundError):  # its process has just finished
            if time.time() - leftover.stat().st_mtime > ABANDONED:
                shutil.rmtree(leftover, ignore_errors=True)


def _compute(
    folder: Path, teacher: Teacher, split: Split, group: str, wanted: list[str], on_views: OnViews | None
) -> None:
    elements = range(group_size(group))
    total, done = len(split) * len(elements), 0
    with ExitStack() as opened:
        files = {name: opened.enter_context((folder / f"{name}.npy").open("wb")) for name in wanted}
        for index in torch.arange(len(split)).split(max(1, VIEWS // len(elements))):
            images = split.batch(index)[0]
            views = torch.cat([apply_element(images, element, group) for element in elements])
            said = teacher.outputs(views, features="features" in wanted, attention="attention" in wanted)
            for name in wanted:
                values = getattr(said, name).unflatten(0, (len(elements), len(images))).numpy()
                if not np.isfinite(values).all():
                    raise RunError(f"The teacher {teacher.name} gives {name} that are not finite; train it again.")
                _write(files[name], values, first=int(index[0]), images=len(split))
            done += len(views)
            if on_views is not None:
                on_views(done, total)


def _write(file: BinaryIO, values: Float[np.ndarray, "g m ..."], *, first: int, images: int) -> None:
    """Write the outputs for images from `first` on into the .npy file of all images.

    No memory map is used: a full disk kills a process that writes to one, but here raises OSError.
    """
    elements, _, *rest = values.shape
    file.seek(0)
    header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, header | {"shape": (elements, images, *rest)})
    start = file.tell()
    for element in range(elements):
        file.seek(start + (element * images + first) * values[0, 0].nbytes)
        file.write(values[element].tobytes())
