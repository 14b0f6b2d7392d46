"""Import a folder of JPEGs, beside a bare Pillow loop over the same files in one process.

    python benchmarks/importing.py --images 20000 --side 512

prints images per second of both, in turn, and the memory that an import adds at most, of all processes together, for
all pictures and for a tenth of them (from /proc, so on Linux alone). The pictures are made first, in a temporary
folder, of smooth noise in colour.
"""

import argparse
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from joblib.externals.loky import get_reusable_executor
from PIL import Image

from qvit.data.importing import import_pictures
from qvit.data.listing import Listing, list_folder
from qvit.data.options import ImportOptions

SAME = 8  # files with the same picture, as making one takes longer than reading it
OPTIONS = ImportOptions(group_by=r"/([0-9]+)\.")


def make(folder: Path, images: int, side: int) -> None:
    """Write JPEGs of two classes; each eight are the same part of one large smooth field, with the same noise."""
    rng = np.random.default_rng(0)
    field = rng.normal(size=(side // 8 + 400, side // 8 + 400, 3)).cumsum(axis=0).cumsum(axis=1)
    field = (field - field.min()) / (field.max() - field.min()) * 200
    for first in range(0, images, SAME):
        top, left = rng.integers(0, 400, 2)
        part = field[top : top + side // 8, left : left + side // 8].astype(np.uint8)
        picture = np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC))
        noisy = np.clip(picture + rng.integers(-9, 10, picture.shape), 0, 255).astype(np.uint8)
        jpeg = io.BytesIO()
        Image.fromarray(noisy).save(jpeg, "JPEG", quality=90)
        for number in range(first, min(first + SAME, images)):
            place = folder / "ab"[number % 2] / f"{number:06}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(jpeg.getvalue())


def bare_loop(folder: Path, size: int) -> float:
    """Return the seconds that one process takes to open, convert and resize all pictures with Pillow alone."""
    began = time.perf_counter()
    total = 0
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            total += int(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BOX))[0, 0, 0])
    return time.perf_counter() - began


def imported(listing: Listing, size: int, out: Path) -> float:
    """Return the seconds that an import takes."""
    out.unlink(missing_ok=True)
    began = time.perf_counter()
    import_pictures(listing, out, size=size, options=OPTIONS)
    return time.perf_counter() - began


def held() -> int:
    """Return the bytes of memory that this process and its descendants hold; shared pages are divided among them."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(place.parent.name)] = int(place.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    ours, before = {os.getpid()}, 0
    while before < len(ours):
        before = len(ours)
        ours |= {process for process, parent in parents.items() if parent in ours}
    total = 0
    for process in ours:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


@contextmanager
def watched(peaks: list[int]) -> Iterator[None]:
    """Append to `peaks` the most memory that was held meanwhile, above what was held before."""
    before, done, seen = held(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(held())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peaks.append(max(seen) - before)


def part(listing: Listing, every: int) -> Listing:
    """Return each `every`th picture of both classes."""
    chosen = [place for place in range(len(listing.files)) if (place // 2) % every == 0]
    assert listing.groups is not None
    return replace(
        listing,
        files=tuple(listing.files[place] for place in chosen),
        labels=listing.labels[chosen],
        groups=tuple(listing.groups[place] for place in chosen),
    )


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
        listing = list_folder(folder / "jpegs", group_by=OPTIONS.group_by)
        times: dict[str, list[float]] = {"bare": [], "import": []}
        for number in range(chosen.rounds):
            order = ("bare", "import") if number % 2 == 0 else ("import", "bare")
            for which in order:
                seconds = (
                    bare_loop(folder / "jpegs", chosen.size)
                    if which == "bare"
                    else imported(listing, chosen.size, folder / "out.npz")
                )
                times[which].append(chosen.images / seconds)
        peaks: list[int] = []
        for every in (10, 1):
            get_reusable_executor().shutdown(wait=True)  # so that the memory of these processes counts
            with watched(peaks):
                imported(part(listing, every), chosen.size, folder / "out.npz")
        what = f"{chosen.images:,} JPEGs of {chosen.side} to {chosen.size} pixels"
        print(f"| {what} | images/s, median of {chosen.rounds} |")
        print("|---|---|")
        for which, rates in times.items():
            print(f"| {which} | {median(rates):.0f} |")
        print(f"| import / bare | {median(times['import']) / median(times['bare']):.2f} |")
        few, all_ = (peak / 1e6 for peak in peaks)
        print(f"| memory that an import adds at most: of a tenth, of all | {few:.0f} MB, {all_:.0f} MB |")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
