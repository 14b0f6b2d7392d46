"""Write images, labels and what is known of them as one .npz file that MedMNIST's code and ours can read."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of a zip's members, so that the same arrays give the same bytes


class Packer:
    """An .npz file that is being written, not compressed, so that its arrays can be mapped into memory.

    With `more`, arrays are added to a file that has some already.
    """

    def __init__(self, file: BinaryIO | Path, *, more: bool = False) -> None:
        self._archive = zipfile.ZipFile(file, "a" if more else "w", zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> "Packer":
        return self

    def __exit__(self, *raised: object) -> None:
        self._archive.close()

    def add_split(
        self,
        name: str,
        images: Iterable[NDArray[np.uint8]],
        labels: Int64[np.ndarray, "n k"],
        *,
        shape: tuple[int, ...],
        **texts: Sequence[str] | None,
    ) -> None:
        """Add a split: its images in parts, `shape` of all of them; `texts` such as sources and groups, one each."""
        self.add_images(f"{name}_images", images, shape)
        self.add(f"{name}_labels", labels.astype(np.uint8) if labels.max() < 256 else labels)
        for key, values in texts.items():
            if values is not None:
                self.add(f"{name}_{key}", np.array(values, dtype=np.str_))

    def add_images(self, key: str, images: Iterable[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
        """Add an array of images that come in parts, `shape` of all of them."""
        with self._open(key) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for part in images:
                member.write(np.ascontiguousarray(part).data)

    def add(self, key: str, array: NDArray[Any]) -> None:
        """Add one array."""
        with self._open(key) as member:
            np.lib.format.write_array(member, array, allow_pickle=False)

    def _open(self, key: str) -> Any:
        return self._archive.open(zipfile.ZipInfo(f"{key}.npy", _EPOCH), "w", force_zip64=True)
