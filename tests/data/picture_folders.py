"""Folders and tables of small made-up pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cyst", "tumour")


def picture(path: Path, seed: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Path:
    """Write a picture of noise, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return path


def class_folder(folder: Path, counts: Mapping[str, int], *, ending: str = "png", mode: str = "RGB") -> Path:
    """Write FOLDER/CLASS/00.png, …, all of them different."""
    seed = 0
    for name, count in counts.items():
        for place in range(count):
            picture(folder / name / f"{place:02}.{ending}", seed, mode=mode)
            seed += 1
    return folder


def table(path: Path, header: str, rows: Iterable[str], *, encoding: str = "utf-8") -> Path:
    """Write a table, one line a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path
