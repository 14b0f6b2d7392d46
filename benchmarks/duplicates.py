"""Near-duplicates: planted copies that are found, what it takes, the shares in official datasets, and rare kinds.

    python benchmarks/duplicates.py                              # minutes: most of it draws the images
    python benchmarks/duplicates.py --images 20000 --sheets look # fewer images; 20 pairs of each dataset as a picture

Draws smooth random textures with blobs, in grey and in colour, with one copy in 200: in all eight positions, half of
them of another brightness and contrast, with noise of five strengths (shares of the range of grey levels). Reading the
file is `numpy.load` of the uncompressed .npz and the sum of every array; both times are the least of three. BreastMNIST
and RetinaMNIST are read where `QVIT_DATA` says. A rare kind is RetinaMNIST in grey among BreastMNIST or `phantom`, in
several numbers, with and without eight copies planted in test. Prints tables in Markdown.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from qvit.data import Dataset, load_dataset
from qvit.data.arrays import Split
from qvit.data.augment import apply_element
from qvit.data.duplicates import TURNS, Duplicates, Pair, conflicts, find_duplicates
from qvit.data.registry import get_info

NOISE = (0.0, 0.01, 0.02, 0.04, 0.08)
RARE = ((2, 0, 1), (3, 1, 2), (6, 2, 3), (12, 3, 6), (20, 5, 10), (30, 8, 15), (60, 15, 30), (120, 30, 60))
SPLITS = ("train", "val", "test")
SIDE = 28
_CHUNK = 2000
Bytes = NDArray[np.uint8]


def textures(count: int, channels: int, rng: np.random.Generator) -> Bytes:
    """Return images (count, channels, 28, 28): filtered noise of random grain and direction, and up to three blobs."""
    axis = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    down, right = np.fft.fftfreq(SIDE)[:, None] * SIDE, np.fft.rfftfreq(SIDE) * SIDE
    out = np.empty((count, channels, SIDE, SIDE), np.uint8)
    for start in range(0, count, _CHUNK):
        m = min(_CHUNK, count - start)
        angle, stretch, grain = (rng.uniform(a, b, (m, 1, 1)) for a, b in ((0, np.pi), (0.5, 2), (1.5, 5)))
        u = (np.cos(angle) * right + np.sin(angle) * down) * stretch
        v = (np.cos(angle) * down - np.sin(angle) * right) / stretch
        kept = np.exp(-(u**2 + v**2) / (2 * grain**2))[:, None]
        noise = np.fft.rfft2(rng.standard_normal((m, channels, SIDE, SIDE)))
        if channels == 3:
            noise = 0.7 * noise[:, :1] + 0.5 * noise
        field = np.fft.irfft2(noise * kept, (SIDE, SIDE))
        field *= 0.16 / field.std((1, 2, 3), keepdims=True)
        for _ in range(3):
            turn, x, y = (rng.uniform(a, b, (m, 1, 1)) for a, b in ((0, np.pi), (-0.3, 0.3), (-0.3, 0.3)))
            long, short = rng.uniform(0.06, 0.35, (2, m, 1, 1))
            p = np.cos(turn) * (axis - x) + np.sin(turn) * (axis[:, None] - y)
            q = np.cos(turn) * (axis[:, None] - y) - np.sin(turn) * (axis - x)
            inside = 1 / (1 + np.exp((6 * ((p / long) ** 2 + (q / short) ** 2 - 1)).clip(-30, 30)))
            there = rng.random((m, 1, 1, 1)) < 0.7
            field += inside[:, None] * rng.uniform(-0.5, 0.5, (m, channels, 1, 1)) * there
        field = field * rng.uniform(0.6, 1.2, (m, 1, 1, 1)) + rng.uniform(0.35, 0.65, (m, channels, 1, 1))
        out[start : start + m] = np.rint(255 * field.clip(0, 1))
    return out


def copies(images: Bytes, rng: np.random.Generator) -> tuple[Bytes, list[tuple[bool, float]]]:
    """Return a copy of each image, and whether its brightness was changed and how strong its noise is."""
    made, kinds = [], []
    for k, image in enumerate(images):
        changed, noise = k // 8 % 2 == 1, NOISE[k // 16 % len(NOISE)]
        copy = apply_element(torch.from_numpy(image[None]), k % 8, "d4")[0].numpy() / 255
        if changed:
            copy = (copy - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.08, 0.08)
        copy = copy + noise * rng.standard_normal(copy.shape)
        made.append(np.rint(255 * copy.clip(0, 1)).astype(np.uint8))
        kinds.append((changed, noise))
    return np.stack(made), kinds


def least(run: Callable[[], object]) -> tuple[float, float]:
    """Return the least of three times in seconds: by the clock, and of the processors."""
    times = []
    for _ in range(3):
        clock, busy = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - clock, time.process_time() - busy))
    return min(t for t, _ in times), min(t for _, t in times)


def read(path: Path) -> None:
    """Read every array of a file."""
    with np.load(path) as arrays:
        for key in arrays.files:
            arrays[key].sum()


def planted(count: int, channels: int, folder: Path) -> None:
    """Print what is found of planted copies, and the times."""
    rng = np.random.default_rng(channels)
    copied = count // 200
    images = textures(count - copied, channels, rng)
    sources = rng.choice(len(images), copied, replace=False)
    made, kinds = copies(images[sources], rng)
    order = rng.permutation(count)
    images, place = np.concatenate([images, made])[order], np.argsort(order)
    starts = (np.array([0, 0.8, 0.9, 1]) * count).astype(int)
    path = folder / f"textures{channels}.npz"
    arrays: dict[str, Any] = {}
    for split, start, stop in zip(SPLITS, starts, starts[1:], strict=False):
        arrays[f"{split}_images"] = images[start:stop].transpose(0, 2, 3, 1).squeeze()
        arrays[f"{split}_labels"] = np.arange(stop - start) % 2
    np.savez(path, **arrays)
    del images, arrays
    data = load_dataset(path)
    results: list[Duplicates] = []
    reading = least(lambda: read(path))
    finding = least(lambda: results.append(find_duplicates(data)))
    assert results[0] == results[1] == results[2]

    def index(at: tuple[str, int]) -> int:
        return int(starts[SPLITS.index(at[0])]) + at[1]

    found = {(index(pair.first), index(pair.second)) for pair in results[0].pairs}
    pairs = [(min(a, b), max(a, b)) for a, b in zip(place[sources], place[count - copied :], strict=True)]
    false = {end for pair in found - set(pairs) for end in pair}
    kind = "colour" if channels == 3 else "grey"
    print(f"\n### {count:,} images, {kind}, {copied} copies: cut {results[0].cut}\n")
    print("| noise | same brightness | changed |\n|---|---|---|")
    for noise in NOISE:
        cells = []
        for changed in (False, True):
            asked = [pair for pair, what in zip(pairs, kinds, strict=True) if what == (changed, noise)]
            cells.append(f"{sum(pair in found for pair in asked)} of {len(asked)}")
        print(f"| {noise:g} | {cells[0]} | {cells[1]} |")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n- found: {sum(pair in found for pair in pairs)} of {copied}")
    print(f"- images in false pairs: {len(false)}, {1e4 * len(false) / count:.2f} of 10,000; ", end="")
    print(f"estimated {1e4 * results[0].false_share:.2f}")
    print(f"- seconds to read {reading[0]:.2f} ({reading[1]:.2f} of processors), to find {finding[0]:.1f} ", end="")
    print(f"({finding[1]:.1f}): {finding[0] / reading[0]:.0f} ({finding[1] / reading[1]:.0f}) times")
    print(f"- most memory of the process until now: {memory:.1f} GB", flush=True)


def sheet(data: Dataset, pairs: list[Pair], path: Path) -> None:
    """Write pairs side by side, the second turned onto the first, as one picture."""
    side, gap, columns = 112, 12, 5
    rows = -(-len(pairs) // columns)
    picture = Image.new("RGB", (columns * (2 * side + gap), rows * (side + gap)), "white")
    for k, pair in enumerate(pairs):
        for right, (split, place) in enumerate((pair.first, pair.second)):
            image = torch.from_numpy(np.array(data[split].images[place : place + 1]))
            turned = apply_element(image, TURNS.index(pair.turn) * right, "d4")[0].numpy()
            shown = Image.fromarray(np.broadcast_to(turned.transpose(1, 2, 0), (*turned.shape[1:], 3)).copy())
            at = (k % columns * (2 * side + gap) + right * side, k // columns * (side + gap))
            picture.paste(shown.resize((side, side), Image.Resampling.NEAREST), at)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def official(name: str, sheets: Path | None) -> str:
    """Return a row of the table about a dataset, and write some of its pairs as a picture."""
    data = load_dataset(name, download=False)
    found = find_duplicates(data)
    test, val = (found.flagged(split, within=["train"]).mean() for split in ("test", "val"))
    exact, differing = sum(pair.exact for pair in found.pairs), len(conflicts(found, data))
    if sheets is not None and found.pairs:
        across = [pair for pair in found.pairs if (pair.first[0], pair.second[0]) == ("train", "test")]
        chosen = across or list(found.pairs)
        some = [chosen[k] for k in np.unique(np.linspace(0, len(chosen) - 1, 20).astype(int))]
        sheet(data, some, sheets / f"{name}.png")
    return (
        f"| {name} | {test:.1%} | {val:.1%} | {len(found.pairs)} | {exact} | {differing} | {found.cut} "
        f"| {found.false_share:.1e} |"
    )


def grey(images: Bytes) -> Bytes:
    """Return images (n, 1, s, s) of one channel or three in grey."""
    if images.shape[1] == 1:
        return images
    return np.rint(np.tensordot(images, [0.299, 0.587, 0.114], (1, 0))[:, None]).astype(np.uint8)


def rare(among: str, counts: tuple[int, int, int], seed: int) -> NDArray[np.int64]:
    """Return how many of the images of a rare kind in test are flagged, of how many, and of planted copies."""
    rng = np.random.default_rng(seed)
    others, kind = load_dataset(among, download=False), load_dataset("retinamnist", download=False)
    chosen = {
        split: grey(np.array(kind[split].images)[rng.permutation(len(kind[split]))[:count]])
        for split, count in zip(SPLITS, counts, strict=True)
    }
    parts = {split: np.concatenate([grey(np.array(others[split].images)), chosen[split]]) for split in SPLITS}
    sources = chosen["train"][:8]
    made = [
        apply_element(torch.from_numpy(image[None]), 1 + k % 7, "d4")[0].numpy() / 255
        + NOISE[k % 4] * rng.standard_normal(image.shape)
        for k, image in enumerate(sources)
    ]
    planted = np.rint(255 * np.stack(made).clip(0, 1)).astype(np.uint8)

    def split(images: Bytes) -> Split:
        return Split(images, np.zeros((len(images), 1), np.int64))

    def find(test: Bytes) -> Duplicates:
        train, val = split(parts["train"]), split(parts["val"])
        return find_duplicates(Dataset(get_info("breastmnist"), SIDE, train, val, split(test)))

    flagged = int(find(parts["test"]).flagged("test")[len(others.test) :].sum())
    pairs = {(pair.first, pair.second) for pair in find(np.concatenate([parts["test"], planted])).pairs}
    found = sum(
        (("train", len(others.train) + k), ("test", len(parts["test"]) + k)) in pairs for k in range(len(sources))
    )
    return np.array([flagged, counts[2], found, len(sources)])


def rare_kinds() -> None:
    """Print what is said of a rare kind."""
    print("\n### RetinaMNIST in grey among others\n")
    print("| among | train, val, test | of test flagged | of planted copies found |\n|---|---|---|---|")
    for among in ("breastmnist", "phantom"):
        for counts in RARE:
            flagged, asked, found, planted = sum((rare(among, counts, seed) for seed in range(3)), np.zeros(4, int))
            numbers = ", ".join(map(str, counts))
            print(f"| {among} | {numbers} | {flagged} of {asked} | {found} of {planted} |", flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--sheets", type=Path, help="a folder for pictures of pairs")
    options = parser.parse_args()
    print("## Near-duplicates\n")
    print(
        "| dataset | test images with one in train | validation | pairs | exact | labels differ | cut | false share |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in ("breastmnist", "retinamnist", "phantom"):
        print(official(name, options.sheets), flush=True)
    rare_kinds()
    with tempfile.TemporaryDirectory() as folder:
        for channels in (1, 3):
            planted(options.images, channels, Path(folder))


if __name__ == "__main__":
    main()
