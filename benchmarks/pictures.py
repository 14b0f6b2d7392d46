"""What can be read as a picture, and how squares are made of it.

    python benchmarks/pictures.py

DICOM: all files in pydicom's own folders that hold pixels, their first frames compared with pydicom's own functions for
pixels, tables and windows, scaled by a formula of this script. Pillow: every mode in every format that it writes.
Squares: means of areas in float64 compared with `to_square`, with Pillow's BOX filter, and with JPEGs that Pillow
decodes at a fraction of their size (`draft`); of noise, and of chest views and white cells in the folder QVIT_IMAGES.
Memory: the most that a process takes for one picture of 100 megapixels. Prints tables in Markdown.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from qvit.data.pictures import PictureError, read_pictures
from qvit.data.squares import to_square

MODES = ("1", "L", "LA", "La", "P", "PA", "I;16", "I;16L", "I;16B", "I;16N", "I", "F", "RGB", "RGBA", "RGBa", "RGBX")
MODES_OF_COLOUR = ("CMYK", "YCbCr", "LAB", "HSV")
Numbers = NDArray[np.float64]
Bytes = NDArray[np.uint8]


def table(*rows: tuple[object, ...]) -> None:
    """Print rows as a table, the first as its head."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    print("\n".join([head, "|" + "---|" * len(rows[0]), *body]) + "\n")


def by_pydicom(header: pydicom.Dataset) -> Numbers:
    """Return the first frame by pydicom's functions, (h, w, c) on the scale from 0 to 255."""
    stored = pixel_array(header, index=0)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(stored, header) * (255 / (2 ** header.RedPaletteColorLookupTableDescriptor[2] - 1))
    if header.SamplesPerPixel == 3:
        return stored * (255 / (2**header.BitsStored - 1))
    values = apply_voi_lut(apply_modality_lut(stored, header), header).astype(np.float64)
    bits = header.get("BitsStored", 64)
    low, high = (0, 2**bits - 1) if not header.get("PixelRepresentation") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
    low, high = low * slope + intercept, high * slope + intercept
    if "VOILUTSequence" in header:
        low, high = 0, 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif header.get("WindowWidth") is None and bits > 8:
        low, high = values.min(), values.max()
    scaled = (values - low) / (high - low) * 255
    return (255 - scaled if header.PhotometricInterpretation == "MONOCHROME1" else scaled)[:, :, None]


def with_pixels() -> Iterator[tuple[Path, pydicom.Dataset]]:
    """Yield pydicom's files that hold pixels, and their headers."""
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        if path.is_file() and path.suffix in ("", ".dcm"):
            try:
                header = pydicom.dcmread(path, force=True)
            except Exception:  # no DICOM
                continue
            if any(f"{kind}PixelData" in header for kind in ("", "Float", "DoubleFloat")):
                yield path, header


def dicom() -> None:
    """Print what became of pydicom's files."""
    refused: list[tuple[object, ...]] = []
    differences, frames = [], 0
    for path, header in with_pixels():
        try:
            found = read_pictures(path)[0].pixels
            frames += len(read_pictures(path, frames="all"))
        except PictureError as told:
            try:
                pixel_array(header)
                alone = "reads it"
            except Exception as error:
                alone = type(error).__name__
            refused.append((path.name, str(told).partition(". ")[0], alone))
            continue
        differences.append(float(np.abs(by_pydicom(header) - found).max()))
    same = sum(difference < 1e-4 for difference in differences)
    table(
        ("DICOM files with pixels", "read", "frames", "of pydicom's pixels", "largest difference", "refused"),
        (len(differences) + len(refused), len(differences), frames, same, f"{max(differences):.1e}", len(refused)),
    )
    table(("refused", "why", "pydicom alone"), *refused)


def drawn(mode: str, rng: np.random.Generator) -> Image.Image:
    """Return random pixels in a mode."""
    if mode == "F":
        return Image.fromarray(rng.random((23, 37)).astype(np.float32))
    if mode == "I":
        return Image.fromarray(rng.integers(0, 65536, (23, 37)).astype(np.int32))
    empty = Image.new(mode, (37, 23))
    made = Image.frombytes(mode, empty.size, rng.integers(0, 256, len(empty.tobytes())).astype(np.uint8).tobytes())
    if mode in ("P", "PA"):
        made.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
    return made


def modes() -> None:
    """Print what became of each mode in each format that Pillow writes."""
    Image.init()
    rng = np.random.default_rng(0)
    rows: list[tuple[object, ...]] = [("format", "modes read, channels", "refused", "found")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one"
        for kind in sorted(Image.SAVE):
            read, refused, why = [], [], set()
            for mode in (*MODES, *MODES_OF_COLOUR):
                try:
                    drawn(mode, rng).save(path, kind)
                except Exception:  # Pillow does not write it so
                    continue
                try:
                    read.append(f"{mode} {read_pictures(path)[0].pixels.shape[2]}")
                except PictureError as told:
                    refused.append(mode)
                    why.add(str(told).partition("found ")[2].partition(". ")[0])
            if read or refused:
                rows.append((kind, ", ".join(read), len(refused) or "", "; ".join(sorted(why))))
    table(*rows)


def areas(pixels: Bytes, size: int) -> Numbers:
    """Return the means of areas of a square picture."""
    side = len(pixels)
    edges = np.arange(size + 1) * side / size
    places = np.arange(side)
    high, low = np.minimum(places + 1, edges[1:, None]), np.maximum(places, edges[:-1, None])
    weights = (high - low).clip(0) * size / side
    return np.einsum("ai,bk,ikc->abc", weights, weights, pixels, optimize=True)


def pictures() -> Iterator[tuple[str, list[Bytes]]]:
    """Yield names and square pictures in colour."""
    rng = np.random.default_rng(0)
    yield "noise of 512", [rng.integers(0, 256, (512, 512, 3)).astype(np.uint8) for _ in range(8)]
    folder = os.environ.get("QVIT_IMAGES")
    for kind, pattern in (("chest views", "chest-views/png/*.png"), ("white cells", "white-cells/*/*.jpg")):
        paths = sorted(Path(folder).glob(pattern))[::10] if folder else []
        found = [Image.open(path).convert("RGB") for path in paths]
        if found:
            yield kind, [np.asarray(one.crop((0, 0, min(one.size), min(one.size)))) for one in found]


def timed(task: Callable[[Any], Any], items: list[Any]) -> tuple[list[Any], float]:
    """Return results, and milliseconds for one: the least of five tries."""
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        results = [task(item) for item in items]
        spent.append((time.perf_counter() - start) / len(items) * 1000)
    return results, min(spent)


def jpeg(pixels: Bytes) -> bytes:
    """Return a picture as a JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def decoded(content: bytes, near: int | None = None) -> Bytes:
    """Return a JPEG's pixels, by Pillow's `draft` of at least `near` pixels if that is given."""
    image = Image.open(io.BytesIO(content))
    if near is not None:
        image.draft(None, (near, near))
    return np.array(image)


def box(pixels: Bytes, size: int) -> Bytes:
    """Return a square by Pillow's own filter."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))


def squares() -> None:
    """Print how far squares are from means of areas, and what they cost."""
    head = ("pictures", "size", "what", "largest difference", "mean", "share over 1", "ms each")
    rows: list[tuple[object, ...]] = [head]
    for name, made in pictures():
        files = [jpeg(one) for one in made]
        full, full_ms = timed(decoded, files)
        for size in (28, 64, 128):
            expected = [areas(one, size) for one in full]

            draft, draft_ms = timed(partial(decoded, near=2 * size), files)
            ours, ours_ms = timed(partial(to_square, size=size), full)
            boxes, box_ms = timed(partial(box, size=size), full)
            drafts = [to_square(one, size) for one in draft]
            for what, found, ms in (
                ("to_square", ours, ours_ms),
                ("BOX", boxes, box_ms),
                (f"draft (decoding; in full {full_ms:.2f})", drafts, draft_ms),
            ):
                apart = np.abs(np.stack(expected) - np.stack(found))
                rows.append(
                    (
                        name,
                        size,
                        what,
                        f"{apart.max():.2f}",
                        f"{apart.mean():.3f}",
                        f"{(apart > 1).mean():.1%}",
                        f"{ms:.2f}",
                    )
                )
    table(*rows)


def memory() -> None:
    """Print the peak memory (on Linux) of reading and resizing 100 megapixels, each time in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from qvit.data.pictures import read_pictures; "
        "from qvit.data.squares import to_square; "
        "peak = lambda: int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) / 1000; "
        "before = peak(); to_square(read_pictures(Path(sys.argv[1]))[0].pixels, 224); print(f'{peak() - before:.0f}')"
    )
    rows: list[tuple[object, ...]] = [("picture of 10,000 x 10,000", "its pixels, MB", "most memory taken, MB")]
    with tempfile.TemporaryDirectory() as folder:
        for name, mode, size in (("grey.png", "L", 100), ("16 bits.png", "I;16", 400), ("colour.jpg", "RGB", 300)):
            path = Path(folder) / name
            Image.new(mode, (10_000, 10_000)).save(path)
            done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
            rows.append((name, size, done.stdout.strip()))
    table(*rows)


def main() -> None:
    """Print all tables."""
    warnings.simplefilter("ignore")  # pydicom's and Pillow's, of what they themselves cannot do
    for print_tables in (dicom, modes, squares, memory):
        print_tables()


if __name__ == "__main__":
    main()
