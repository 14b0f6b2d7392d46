"""Pictures in DICOM files, as a viewer shows them. Needs pydicom: `qvit.data.pictures` imports this module lazily."""

import os
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from qvit.data.pictures import (
    MOST_PIXELS,
    Frames,
    Opened,
    Picture,
    PictureError,
    Pixels,
    check_sides,
    grey_if_equal,
    refusal,
)

Stored: TypeAlias = NDArray[Any]  # a frame (h, w), or (h, w, 3), as the file has it
Ends: TypeAlias = tuple[float, float]  # what becomes black, and white

TOGETHER = 4  # times as many pixels as in one picture, in all frames of a file
MOST_BYTES = 2**30  # of a file, as it is read whole
_BYTES = 4  # of a pixel, in files that are smaller

BURNT_IN = "BurnedInAnnotation is YES: what is written in the picture may name the patient"
NO_WINDOW = "no window is stored: the lowest value became black, the highest white"

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_OF_FRAMES = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_PALETTE = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue", "Alpha")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    if not (colour == "Alpha" and part == "Descriptor")
]
_READ = [  # nothing else in a header is looked at
    "PatientID", "BurnedInAnnotation",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", *_PIXELS,
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *_PALETTE,
]  # fmt: skip


def read_dicom(file: Opened, *, frames: Frames = "first", most: int = MOST_PIXELS) -> list[Picture]:
    """Return the first frame of a DICOM file, or each, on the scale from 0 to 255.

    Grey: rescale or modality table, then the first VOI table or window, by pydicom's own functions; the ends of the
    window's scale become 0 and 255, as float32. Enhanced multi-frame files have these for each frame. Without a window,
    8 bits and fewer keep their scale, and of deeper data the lowest value of all frames that are read becomes 0, the
    highest 255 (a warning says so). MONOCHROME1 is inverted. Colour: RGB, YBR and palettes become RGB; palettes of
    which only greys are used become grey. Padding, overlays, presentation states, the shape of pixels and colour
    profiles are not regarded.

    PatientID is returned as `group`, burnt-in annotation as a warning; nothing else of a header leaves this function,
    not in a message either.

    Raises `PictureError` for files without pixels, damaged ones, compressed ones that no installed package decodes,
    and ones of more than `most` pixels in a frame, or four times as many in all.
    """
    try:
        return _read(file, frames, most)
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # a damaged header can make pydicom raise anything; its messages may quote the header
        found = f"one that pydicom cannot read ({type(error).__name__})"
        raise refusal("a sound DICOM file", found, "Get the file anew, or leave it out.") from None


def _read(file: Opened, frames: Frames, most: int) -> list[Picture]:
    _check_bytes(file, min(MOST_BYTES, _BYTES * TOGETHER * most))
    header = dcmread(file, force=True, specific_tags=_READ)
    if not any(name in header for name in _PIXELS):
        raise refusal("a DICOM file with pixels", "one without, or cut off before them", "Leave it out.")
    if None in (header.get("Rows"), header.get("Columns")):
        raise refusal("Rows and Columns", "pixels without them", "Get the file anew, or leave it out.")
    check_sides(header.Columns, header.Rows, most)
    count = int(header.get("NumberOfFrames") or 1) if frames == "all" else 1
    if count * header.Columns * header.Rows > TOGETHER * most:
        expected = f"at most {TOGETHER * most / 10**6:g} megapixels in all frames"
        raise refusal(expected, f"{count} of {header.Columns} x {header.Rows}", "Read the first only, or split it.")
    stored, photometric = _decoded(header, count)
    header.PhotometricInterpretation = photometric
    notes = [BURNT_IN] if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES" else []
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        pictures, windowed = _grey(stored, header)
        notes += [] if windowed else [NO_WINDOW]
    else:
        pictures = [_colour(frame, header) for frame in stored]
    group = str(header.get("PatientID") or "").strip() or None
    return [Picture(pixels, group, warnings=tuple(notes)) for pixels in pictures]


def _check_bytes(file: Opened, most: int) -> None:
    """Raise `PictureError` for a file of more than `most` bytes, deflated or not."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(144)[140:], "little")
    if size <= most and DeflatedExplicitVRLittleEndian.encode() in file.read(min(length, 2**16)):
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        size, more = 0, True
        while size <= most and more and not inflater.eof:
            packed = inflater.unconsumed_tail or file.read(2**20)
            inflated = inflater.decompress(packed, 2**24)
            size, more = size + len(inflated), bool(packed or inflated)
    file.seek(0)
    if size > most:
        raise refusal(f"a DICOM file of at most {most // 2**20:,} MiB", "a larger one", "Split it into frames.")


def _decoded(header: Dataset, count: int) -> tuple[list[Stored], str]:
    """Return the first frames as stored, colours as RGB where pydicom knows how, and what the numbers mean then."""
    syntax = _syntax(header)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        found = syntax.name if syntax.name != syntax else "an unknown transfer syntax"
        raise refusal("pixels that pydicom can decode", found, "Convert the file.") from None
    missing = "; ".join(decoder.missing_dependencies)
    advice = f"Convert the file{f', or install one of: {missing}' if missing else ''}."
    if not decoder.is_available:
        raise refusal("a package that decodes compressed pixels", f"none for {syntax.name}", advice)
    frames, meanings = [], set()
    try:
        for frame, meaning in decoder.iter_array(header, indices=range(count)):
            frames.append(frame)
            meanings.add(str(meaning["photometric_interpretation"]))
    except (ValueError, RuntimeError) as error:
        if isinstance(error, ValueError) or not decoder.is_encapsulated:
            raise _unlike_header() from None
        plugins = " and ".join(decoder.available_plugins)
        raise refusal(f"{syntax.name} that can be decoded", f"what {plugins} cannot", advice) from None
    if len(frames) != count or len(meanings) != 1:
        raise _unlike_header()
    return frames, meanings.pop()


def _unlike_header() -> PictureError:
    return refusal("pixels as the header says", "fewer or others", "Get the file anew, or leave it out.")


def _syntax(header: Dataset) -> UID:
    given = header.file_meta.get("TransferSyntaxUID")
    if given:
        return UID(given)
    implicit, little = header.original_encoding  # as pydicom guessed when it read the header
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    header.file_meta.TransferSyntaxUID = syntax
    return syntax


def _grey(stored: Sequence[Stored], header: Dataset) -> tuple[list[Float32[np.ndarray, "h w 1"]], bool]:
    """Return grey frames, and whether all have a scale of their own."""
    own = [_of_frame(header, index) for index in range(len(stored))]
    scales = [_scale(one) for one in own]
    pairs = list(zip(stored, own, strict=True))
    free = [apply_modality_lut(*pair) for pair, scale in zip(pairs, scales, strict=True) if scale is None]
    whole = (min(float(values.min()) for values in free), max(float(values.max()) for values in free)) if free else None
    pictures = []
    for (frame, one), scale in zip(pairs, scales, strict=True):
        low, high = scale or whole or (0.0, 0.0)
        values = apply_voi_lut(apply_modality_lut(frame, one), one).astype(np.float64)
        values = ((values - low) / (high - low) * 255).clip(0, 255) if high != low else np.zeros_like(values)
        if not np.isfinite(values).all():
            raise refusal("finite numbers", "NaN or infinity", "Repair the file, or leave it out.")
        if header.PhotometricInterpretation == "MONOCHROME1":
            values = 255 - values
        pictures.append(values.astype(np.float32)[:, :, None])
    return pictures, not free


def _of_frame(header: Dataset, index: int) -> Dataset:
    """Return the header with what an enhanced file says of one frame where others say it of all."""
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or [])[:1],
        *(header.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1],
    ]
    if not groups:
        return header
    own = Dataset()
    own.update(header)
    own.file_meta = header.file_meta
    for group in groups:
        for name in _OF_FRAMES:
            for item in (group.get(name) or [])[:1]:
                own.update(item)
    return own


def _scale(header: Dataset) -> Ends | None:
    """Return what becomes black and white by the window, or by the depth of at most 8 bits; None if neither does."""
    table = next(iter(header.get("VOILUTSequence") or []), Dataset())
    if None not in (table.get("LUTDescriptor"), table.get("LUTData")):
        return 0.0, 2.0 ** table.LUTDescriptor[2] - 1
    if None not in (header.get("WindowCenter"), header.get("WindowWidth")):
        low, high = apply_windowing(np.array([-np.inf, np.inf]), header)  # whatever the window's function
        return float(low), float(high)
    bits = header.get("BitsStored") if "PixelData" in header else None
    if bits is None or bits > 8 or header.get("ModalityLUTSequence"):
        return None
    first = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
    low, high = sorted(apply_modality_lut(np.array([first, first + 2**bits - 1]), header))
    return float(low), float(high)


def _colour(stored: Stored, header: Dataset) -> Pixels:
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)
        depth = header.RedPaletteColorLookupTableDescriptor[2]
        pixels = _on_scale(colours[:, :, :3], depth)
        if colours.shape[2] == 4:  # laid over black
            pixels = np.rint(pixels * (_on_scale(colours[:, :, 3:], depth) / 255.0)).astype(pixels.dtype)
        return grey_if_equal(pixels)
    if header.PhotometricInterpretation != "RGB":
        raise refusal("grey, RGB, YBR or a palette", "colours that pydicom does not convert", "Convert the file.")
    return _on_scale(stored, header.BitsStored)


def _on_scale(colours: Stored, bits: int) -> NDArray[Any]:
    if colours.dtype == np.uint8 and bits == 8:
        return colours
    return (colours.clip(0, 2**bits - 1) * (255.0 / (2**bits - 1))).astype(np.float32)
