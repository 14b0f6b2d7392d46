"""Predict many pictures from the disk, beside what decoding and the model take alone.

    python benchmarks/predicting.py --images 100000

Prints images per second of `qvit.load(RUN).stream(FOLDER)`, with and without averaging over symmetries, of PNGs of 28
pixels and JPEGs of 512, and what two cores would allow: two processes at once decode some of the files, and then two
processes at once run the model on as many squares, each timed alone in the same run, after everything was loaded. The
bound is two images in the sum of both times per image.
Memory is what all processes hold together above what was held before (from /proc, so on Linux alone), for all images
and for a third of them. Few pictures are made, and named many times by links, as making them takes longer than reading.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky import get_reusable_executor
from PIL import Image

import qvit
from importing import make, watched
from qvit.answers.members import ask, open_member
from qvit.answers.needs import Needs
from qvit.answers.reading import MOST_FILES, block
from qvit.answers.spread import File
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run

DIFFERENT = 2000  # pictures
CORES = 2


def small(folder: Path, count: int) -> list[Path]:
    """Write PNGs of 28 pixels in colour."""
    folder.mkdir()
    data = qvit.load_dataset("phantom")
    for place in range(count):
        Image.fromarray(np.array(data.train.images[place]).transpose(1, 2, 0)).save(folder / f"{place:05}.png")
    return sorted(folder.iterdir())


def many(files: list[Path], count: int, folder: Path) -> list[Path]:
    """Return so many links to files."""
    folder.mkdir()
    links = [folder / f"{place:06}{files[0].suffix}" for place in range(count)]
    for place, link in enumerate(links):
        os.link(files[place % len(files)], link)
    return links


def decode(needs: Needs, files: list[Path]) -> float:
    """Return the seconds that decoding takes."""
    given: list[File] = [(str(file), None) for file in files]
    block(needs, 0, given[:50])
    began = time.perf_counter()
    for k in range(0, len(files), MOST_FILES):
        block(needs, 0, given[k : k + MOST_FILES])
    return time.perf_counter() - began


def model(folder: Path, count: int) -> float:
    """Return the seconds that the model takes for so many images, in blocks."""
    member = open_member(Run(folder))
    squares = np.zeros((MOST_FILES, member.needs.channels, member.needs.size, member.needs.size), np.uint8)
    ask([member], squares)
    began = time.perf_counter()
    for _ in range(0, count, MOST_FILES):
        ask([member], squares)
    return (time.perf_counter() - began) * count / (MOST_FILES * -(-count // MOST_FILES))


def both(work: Callable[..., float], *given: Any) -> float:
    """Return the seconds that work takes which two processes do at the same time; they have done it once before."""
    pool = get_reusable_executor(max_workers=CORES)
    for _ in range(2):
        seconds = [each.result() for each in [pool.submit(work, *given) for _ in range(CORES)]]
    return float(np.mean(seconds))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--jpegs", type=int, default=20_000)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        "| pictures | averaged over | decoding alone | model alone | two cores allow | images/s | share "
        "| memory: a third, all |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "jpegs", DIFFERENT, 512)
        kinds = {
            "28-pixel PNGs": (small(folder / "pngs", DIFFERENT), chosen.images),
            "512-pixel JPEGs": (sorted((folder / "jpegs").rglob("*.jpg")), chosen.jpegs),
        }
        links = {kind: many(files, count, folder / kind[:3]) for kind, (files, count) in kinds.items()}
        for group in ("none", "d4"):
            config = resolve({"dataset": "phantom", "epochs": 1, "augment": group, "tta": "always"})
            run = train_run(config, folder / group)
            predictor = qvit.load(run.folder)
            for kind, (files, count) in kinds.items():
                decoding = both(decode, predictor.needs, files) / len(files)
                thinking = both(model, run.folder, len(files)) / len(files)
                bound = CORES / (decoding + thinking)
                get_reusable_executor().shutdown(wait=True)  # so that starting processes counts
                before = time.perf_counter()
                done = sum(1 for _ in predictor.stream(links[kind]))
                rate = done / (time.perf_counter() - before)
                assert done == count
                peaks: list[int] = []
                for some in (links[kind][: count // 3], links[kind]):
                    get_reusable_executor().shutdown(wait=True)
                    with watched(peaks):
                        sum(1 for _ in predictor.stream(some))
                few, all_ = (f"{peak / 1e6:.0f} MB" for peak in peaks)
                print(
                    f"| {count:,} {kind} | {group} | {1e3 * decoding:.2f} ms | {1e3 * thinking:.3f} ms | {bound:.0f}/s "
                    f"| {rate:.0f} | {rate / bound:.0%} | {few}, {all_} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
