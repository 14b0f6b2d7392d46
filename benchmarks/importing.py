"""Import a folder of JPEGs, beside a bare Pillow loop over the same files in one process.

    python benchmarks/importing.py --images 20000 --side 512

prints images per second of both, in turn, and the memory that an import takes at most. The pictures are made first, in
a temporary folder, of smooth noise in colour.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from qvit.data.importing import import_pictures
from qvit.data.listing import list_folder
from qvit.data.options import ImportOptions

OPTIONS = ImportOptions(group_by=r"/([0-9]+)\.")


def make(folder: Path, images: int, side: int) -> None:
    """Write JPEGs of two classes; every picture is another part of one large smooth field, with noise."""
    rng = np.random.default_rng(0)
    field = rng.normal(size=(side // 8 + 400, side // 8 + 400, 3)).cumsum(axis=0).cumsum(axis=1)
    field = (field - field.min()) / (field.max() - field.min()) * 200
    for number in range(images):
        top, left = rng.integers(0, 400, 2)
        part = field[top : top + side // 8, left : left + side // 8].astype(np.uint8)
        picture = np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC))
        noisy = np.clip(picture + rng.integers(-9, 10, picture.shape), 0, 255).astype(np.uint8)
        place = folder / "ab"[number % 2] / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(place, quality=90)


def bare_loop(folder: Path, size: int) -> float:
    """Return the seconds that one process takes to open, convert and resize all pictures with Pillow alone."""
    began = time.perf_counter()
    total = 0
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            total += int(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BOX))[0, 0, 0])
    return time.perf_counter() - began


def imported(folder: Path, size: int, out: Path) -> float:
    """Return the seconds that an import takes."""
    out.unlink(missing_ok=True)
    began = time.perf_counter()
    import_pictures(list_folder(folder, group_by=OPTIONS.group_by), out, size=size, options=OPTIONS)
    return time.perf_counter() - began


def main() -> None:
    """Time both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        make(folder / "jpegs", chosen.images, chosen.side)
        bare_loop(folder / "jpegs", chosen.size)  # the files are in memory then, for both
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times: dict[str, list[float]] = {"bare": [], "import": []}
        for number in range(chosen.rounds):
            order = ("bare", "import") if number % 2 == 0 else ("import", "bare")
            for which in order:
                seconds = (
                    bare_loop(folder / "jpegs", chosen.size)
                    if which == "bare"
                    else imported(folder / "jpegs", chosen.size, folder / "out.npz")
                )
                times[which].append(chosen.images / seconds)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        what = f"{chosen.images:,} JPEGs of {chosen.side} to {chosen.size} pixels"
        print(f"| {what} | images/s, median of {chosen.rounds} |")
        print("|---|---|")
        for which, rates in times.items():
            print(f"| {which} | {median(rates):.0f} |")
        print(f"| import / bare | {median(times['import']) / median(times['bare']):.2f} |")
        print(f"| memory that the import added at most | {(after - before) / 1024:.0f} MB |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
