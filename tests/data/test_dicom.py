"""DICOM files made on the spot against the standard's formulas, and all of pydicom's own against its functions."""

import logging
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.data.pictures import MOST_PIXELS, PictureError, read_pictures

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.pixels.utils import pixel_array  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
)

from qvit.data import dicom  # noqa: E402
from qvit.data.dicom import BURNT_IN, NO_WINDOW, TOGETHER  # noqa: E402

H, W = 6, 9
RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (H, W)).astype(np.uint16)
BYTES = RNG.integers(0, 256, (H, W)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
ANEW = "Get the file anew, or leave it out."
Pixels = np.ndarray[Any, Any]
Save = Callable[..., Path]


def item(**elements: Any) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def table(values: list[int], first: int, bits: int) -> list[Dataset]:
    made = item(LUTDescriptor=[len(values), first, bits])
    made.add_new("LUTData", "US", values)
    return [made]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write stored values (h, w), (h, w, 3) or with frames first, and a header, as a DICOM file."""

    def save(
        stored: Pixels | None, syntax: UID = ExplicitVRLittleEndian, *, colour: bool = False, **header: Any
    ) -> Path:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, "1.2.840.10008.5.1.4.1.1.7"
        meta.MediaStorageSOPInstanceUID = "1.2.3"
        path = tmp_path / "own.dcm"
        made = Dataset()
        made.file_meta = meta
        if stored is not None:
            frames = stored.shape[0] if stored.ndim == 3 + colour else 1
            made.Rows, made.Columns = stored.shape[-2 - colour : stored.ndim - colour]
            made.SamplesPerPixel, made.PlanarConfiguration = (3, 0) if colour else (1, None)
            made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
            made.BitsAllocated = made.BitsStored = 8 * stored.dtype.itemsize
            made.HighBit = made.BitsStored - 1
            made.PixelRepresentation = int(stored.dtype.kind == "i")
            if frames > 1:
                made.NumberOfFrames = frames
            order = ">" if syntax == ExplicitVRBigEndian else "<"
            content = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
            made.add_new("PixelData", "OB" if stored.dtype.itemsize == 1 else "OW", content + bytes(len(content) % 2))
        for name, value in header.items():
            if value is None:
                delattr(made, name)
            else:
                setattr(made, name, value)
        if syntax.is_encapsulated and "PixelData" in made:
            made["PixelData"].VR = "OB"
            made["PixelData"].is_undefined_length = True
        made.save_as(path, enforce_file_format=True)
        return path

    return save


def shown(path: Path, **options: Any) -> Pixels:
    """The only picture's only channel."""
    (picture,) = read_pictures(path, **options)
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.shape[2] == 1
    return picture.pixels[:, :, 0]


def linear(x: Pixels, centre: float, width: float) -> Pixels:
    """PS3.3 C.11.2.1.2.1, from black (0) to white (255)."""
    return (((x - (centre - 0.5)) / (width - 1) + 0.5) * 255).clip(0, 255)


# The grey of one frame

WINDOW = {"WindowCenter": 1000, "WindowWidth": 701}
GREY: dict[str, tuple[Pixels, dict[str, Any], Pixels]] = {
    "window": (DEEP, WINDOW, linear(DEEP, 1000, 701)),
    "the first of two windows": (DEEP, {"WindowCenter": [1000, 5], "WindowWidth": [701, 9]}, linear(DEEP, 1000, 701)),
    "exact window": (
        DEEP,
        {**WINDOW, "VOILUTFunction": "LINEAR_EXACT"},
        ((DEEP - 1000.0) / 701 * 255 + 127.5).clip(0, 255),
    ),
    "sigmoid": (DEEP, {**WINDOW, "VOILUTFunction": "SIGMOID"}, 255 / (1 + np.exp(-4 * (DEEP - 1000.0) / 701))),
    "signed": (
        DEEP.astype(np.int16) - 2000,
        {"WindowCenter": -300, "WindowWidth": 500},
        linear(DEEP - 2000.0, -300, 500),
    ),
    "rescaled": (
        DEEP,
        {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400},
        linear(2.0 * DEEP - 1024, 40, 400),
    ),
    "rescaled downwards": (
        DEEP,
        {"RescaleSlope": -1, "RescaleIntercept": 0, "WindowCenter": -1000, "WindowWidth": 701},
        linear(-1.0 * DEEP, -1000, 701),
    ),
    "white is zero": (DEEP, {**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}, 255 - linear(DEEP, 1000, 701)),
    "a table before the window": (
        BYTES % 4,
        {"ModalityLUTSequence": table([100, 3000, 200, 50], 0, 16), **WINDOW},
        linear(np.array([100.0, 3000, 200, 50])[BYTES % 4], 1000, 701),
    ),
    "a table instead of a window": (
        BYTES,
        {"VOILUTSequence": table([0, 1023, 500], 100, 10), **WINDOW},
        np.array([0, 1023, 500])[(BYTES.astype(int) - 100).clip(0, 2)] * 255 / 1023,
    ),
    "values beyond a table's depth": (
        BYTES,
        {"VOILUTSequence": table([0, 1023, 4000], 100, 10)},
        np.array([0, 255, 255])[(BYTES.astype(int) - 100).clip(0, 2)],
    ),
    "8 bits": (BYTES // 2, {}, BYTES // 2),
    "8 bits, signed": ((BYTES // 2).astype(np.int8), {}, BYTES // 2 + 128.0),
    "8 bits, rescaled": (BYTES // 2, {"RescaleSlope": 3, "RescaleIntercept": 7}, BYTES // 2),
    "8 bits, rescaled downwards": (BYTES // 2, {"RescaleSlope": -3, "RescaleIntercept": 7}, 255.0 - BYTES // 2),
    "6 bits": (BYTES // 4, {"BitsStored": 6, "HighBit": 5}, (BYTES // 4) * (255 / 63)),
}


@pytest.mark.parametrize("case", GREY)
def test_grey(case: str, save: Save) -> None:
    stored, header, expected = GREY[case]
    path = save(stored, **header)
    assert read_pictures(path)[0].warnings == ()
    assert np.abs(shown(path) - expected).max() < 1e-4


def test_deep_values_without_a_window_are_stretched_and_told(save: Save) -> None:
    path = save(DEEP)
    low, high = float(DEEP.min()), float(DEEP.max())
    assert np.abs(shown(path) - (DEEP - low) / (high - low) * 255).max() < 1e-4
    assert read_pictures(path)[0].warnings == (NO_WINDOW,)
    inverted = save(DEEP, PhotometricInterpretation="MONOCHROME1", WindowCenter="", WindowWidth="")
    assert np.abs(shown(inverted) - (high - DEEP) / (high - low) * 255).max() < 1e-4


def test_without_a_window_all_frames_have_one_scale(save: Save) -> None:
    frames = np.stack([DEEP // 4, DEEP, DEEP // 2])
    path = save(frames)
    low, high = float(frames.min()), float(frames.max())
    found = [picture.pixels[:, :, 0] for picture in read_pictures(path, frames="all")]
    assert np.abs(np.stack(found) - (frames - low) / (high - low) * 255).max() < 1e-4
    first = shown(path)
    assert (first.min(), first.max()) == (0, 255)


def test_a_constant_picture_is_black(save: Save) -> None:
    assert shown(save(np.full((H, W), 700, np.uint16))).max() == 0


def test_each_frame_of_an_enhanced_file_has_its_own_window(save: Save) -> None:
    shared = item(PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-100)])
    windows = [(1000, 701), (2000, 401)]
    each = [item(FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=w)]) for c, w in windows]
    path = save(np.stack([DEEP, DEEP]), SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=each)
    pictures = read_pictures(path, frames="all")
    assert [picture.warnings for picture in pictures] == [(), ()]
    for picture, (centre, width) in zip(pictures, windows, strict=True):
        assert np.abs(picture.pixels[:, :, 0] - linear(2.0 * DEEP - 100, centre, width)).max() < 1e-4
    assert np.array_equal(read_pictures(path)[0].pixels, pictures[0].pixels)


def test_floating_point(save: Save) -> None:
    values = RNG.normal(size=(H, W)).astype(np.float32)
    header = {"PixelData": None, "PixelRepresentation": None, "BitsAllocated": 32, "BitsStored": None, "HighBit": None}
    path = save(DEEP, **header, FloatPixelData=values.tobytes())
    low, high = float(values.min()), float(values.max())
    assert np.abs(shown(path) - (values - low) / (high - low) * 255).max() < 1e-4
    values[1, 2] = np.nan
    message = r"^expected finite numbers, found NaN or infinity\. Repair the file, or leave it out\.$"
    with pytest.raises(PictureError, match=message):
        read_pictures(save(DEEP, **header, FloatPixelData=values.tobytes()))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("stored", [DEEP, BYTES], ids=["16 bits", "8 bits"])
def test_all_ways_to_write_numbers(stored: Pixels, syntax: UID, save: Save) -> None:
    expected = linear(stored.astype(float), 100, 301)
    assert np.abs(shown(save(stored, syntax, WindowCenter=100, WindowWidth=301)) - expected).max() < 1e-4


def test_files_without_a_preamble_are_read_by_their_name(save: Save) -> None:
    path = save(DEEP, ImplicitVRLittleEndian, Modality="CT", **WINDOW)
    content = path.read_bytes()
    path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    assert np.abs(shown(path) - linear(DEEP, 1000, 701)).max() < 1e-4
    path.write_bytes(b"\3" + path.read_bytes())
    assert "found none of these" in refused(path)
    with pytest.raises(PictureError, match="found none of these"):
        read_pictures(path.rename(path.with_name("own.png")))


# Colours


def test_colours(save: Save) -> None:
    (picture,) = read_pictures(save(COLOUR, colour=True))
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, COLOUR)
    deep = COLOUR.astype(np.uint16) * 16
    (picture,) = read_pictures(save(deep, colour=True, BitsStored=12, HighBit=11))
    assert np.abs(picture.pixels - deep * (255 / 4095)).max() < 1e-4


def test_luminance_and_chrominance_become_red_green_and_blue(save: Save) -> None:
    stored = np.tile(np.array([[[76, 85, 255]], [[150, 44, 21]], [[77, 128, 128]]], np.uint8), (2, W, 1))
    expected = np.tile(np.array([[[254, 0, 0]], [[0, 255, 1]], [[77, 77, 77]]]), (2, W, 1))
    (picture,) = read_pictures(save(stored, colour=True, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 1


def palette(red: list[int], green: list[int], blue: list[int], bits: int, **more: list[int]) -> dict[str, Any]:
    header: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in {"Red": red, "Green": green, "Blue": blue, **more}.items():
        if name != "Alpha":
            header[f"{name}PaletteColorLookupTableDescriptor"] = [len(values), 0, bits]
        header[f"{name}PaletteColorLookupTableData"] = np.array(values, f"<u{bits // 8}").tobytes()
    return header


def test_palettes(save: Save) -> None:
    indices = BYTES % 4
    three = [0, 200, 90, 255], [1, 2, 3, 4], [9, 8, 7, 6]
    (picture,) = read_pictures(save(indices, **palette(*three, bits=8)))
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, np.array(three).T[indices])
    (picture,) = read_pictures(save(indices, **palette(*(np.multiply(three, 257).tolist()), bits=16)))
    assert np.abs(picture.pixels - np.array(three).T[indices]).max() < 1e-4
    (picture,) = read_pictures(save(indices, **palette(*three, bits=8, Alpha=[0, 255, 51, 102])))
    expected = np.rint(np.array(three).T * np.array([0, 1, 0.2, 0.4])[:, None])
    assert np.array_equal(picture.pixels, expected[indices])


def test_a_palette_of_greys_is_grey(save: Save) -> None:
    greys = [7, 30, 90, 255]
    (picture,) = read_pictures(save(BYTES % 4, **palette(greys, greys, greys, bits=8)))
    assert np.array_equal(picture.pixels[:, :, 0], np.array(greys)[BYTES % 4])


# What leaves the header


def test_the_patient_is_the_group_and_nothing_else_is_told(save: Save) -> None:
    path = save(DEEP, **WINDOW, PatientID=" 4711 ", PatientName="DOE^JOHN", BurnedInAnnotation="NO")
    (picture,) = read_pictures(path)
    assert (picture.group, picture.warnings) == ("4711", ())
    assert read_pictures(save(DEEP, **WINDOW, PatientID=""))[0].group is None
    assert read_pictures(save(DEEP, **WINDOW))[0].group is None


def test_burnt_in_annotation_is_warned_of(save: Save) -> None:
    path = save(np.stack([DEEP, DEEP]), BurnedInAnnotation="YES")
    assert [picture.warnings for picture in read_pictures(path, frames="all")] == [(BURNT_IN, NO_WINDOW)] * 2


def test_errors_and_logs_do_not_quote_a_header(save: Save, caplog: pytest.LogCaptureFixture) -> None:
    path = save(DEEP, WindowCenter="1000", WindowWidth="701")
    content = path.read_bytes()
    at = content.index(b"\x28\x00\x50\x10DS\x04\x00") + 8
    path.write_bytes(content[:at] + b"DOE " + content[at + 4 :])
    with caplog.at_level(logging.DEBUG), pytest.raises(PictureError) as refusal:
        read_pictures(path)
    expected = r"expected a sound DICOM file, found one that pydicom cannot read \(\w+\)\. "
    assert re.fullmatch(f"{expected}{re.escape(ANEW)}", str(refusal.value))
    assert refusal.value.__suppress_context__
    assert not [record for record in caplog.records if record.name.startswith("pydicom")]
    assert logging.getLogger("pydicom").level != logging.CRITICAL + 1


# What is refused

JPEG = b"\xff\xd8\xff\xd9"


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(PictureError) as refusal:
        read_pictures(path, **options)
    return str(refusal.value)


def test_without_pixels(save: Save) -> None:
    expected = "expected a DICOM file with pixels, found one without, or cut off before them. Leave it out."
    assert refused(save(None, PatientID="4711")) == expected
    path = save(DEEP)
    path.write_bytes(path.read_bytes()[: -DEEP.nbytes - 12])
    assert refused(path) == expected


def test_text_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "own.dcm").write_text("no picture")
    assert refused(tmp_path / "own.dcm").startswith(
        "expected a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM file, found text"
    )


@pytest.mark.parametrize("missing", ["Rows", "Columns"])
def test_without_a_size(missing: str, save: Save) -> None:
    assert refused(save(DEEP, **{missing: None})) == f"expected Rows and Columns, found pixels without them. {ANEW}"


def test_pixels_that_are_missing(save: Save) -> None:
    unlike = f"expected pixels as the header says, found fewer or others. {ANEW}"
    assert refused(save(DEEP, Rows=H + 1)) == unlike
    path = save(DEEP)
    path.write_bytes(path.read_bytes()[:-8])
    assert refused(path) != ""
    assert refused(save(DEEP, NumberOfFrames=2), frames="all") == unlike


def test_sizes(save: Save) -> None:
    assert refused(save(DEEP[:1])) == "expected at least 2 x 2 pixels, found 9 x 1. Leave it out."
    large = save(DEEP, Rows=10_001, Columns=10_000)
    assert refused(large).startswith("expected at most 100 megapixels, found 10000 x 10001. ")
    frames = TOGETHER * MOST_PIXELS // DEEP.size + 1
    expected = f"expected at most 400 megapixels in all frames, found {frames} of 9 x 6. "
    assert refused(save(DEEP, NumberOfFrames=frames), frames="all") == f"{expected}Read the first only, or split it."
    assert shown(save(DEEP, NumberOfFrames=1, **WINDOW)).shape == (H, W)


def test_large_files(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(DEEP, **WINDOW)
    monkeypatch.setattr(dicom, "MOST_BYTES", path.stat().st_size)
    assert shown(path).shape == (H, W)
    monkeypatch.setattr(dicom, "MOST_BYTES", path.stat().st_size - 1)
    assert refused(path) == "expected a DICOM file of at most 0 MiB, found a larger one. Split it into frames."


def test_a_small_file_that_inflates_to_a_large_one(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "MOST_BYTES", 2**24)
    path = save(DEEP, DeflatedExplicitVRLittleEndian, **WINDOW)
    assert shown(path).shape == (H, W)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(content[:start] + deflater.compress(bytes(2**24 + 1)) + deflater.flush())
    assert path.stat().st_size < 2**15
    assert refused(path).startswith("expected a DICOM file of at most 16 MiB, found a larger one. ")


def test_compressed_pixels_that_nothing_decodes(save: Save) -> None:
    path = save(BYTES, JPEGLSLossless, PixelData=encapsulate([JPEG]))
    if not pydicom.pixels.get_decoder(JPEGLSLossless).is_available:
        message = refused(path)
        start = "expected a package that decodes compressed pixels, found none for JPEG-LS Lossless Image Compression. "
        assert message.startswith(f"{start}Convert the file, or install one of: ")
        assert "pylibjpeg" in message
    path = save(BYTES, JPEG2000Lossless, PixelData=encapsulate([JPEG]))
    assert refused(path).startswith(f"expected {JPEG2000Lossless.name} that can be decoded, found what pillow cannot. ")


def test_transfer_syntaxes_that_pydicom_does_not_know(save: Save) -> None:
    told = "expected pixels that pydicom can decode, found {}. Convert the file."
    path = save(BYTES, MPEG2MPML, PixelData=encapsulate([JPEG]))
    assert refused(path) == told.format(MPEG2MPML.name)
    path.write_bytes(path.read_bytes().replace(MPEG2MPML.encode(), b"1.2.3".ljust(len(MPEG2MPML), b"4")))
    assert refused(path) == told.format("an unknown transfer syntax")


def test_colours_that_are_not_converted(save: Save) -> None:
    message = refused(save(COLOUR, colour=True, PhotometricInterpretation="HSV"))
    assert (
        message
        == "expected grey, RGB, YBR or a palette, found colours that pydicom does not convert. Convert the file."
    )


def test_windows_of_no_width(save: Save) -> None:
    assert "pydicom cannot read" in refused(save(DEEP, WindowCenter=3, WindowWidth=0))


# pydicom's own files

FILES = sorted((Path(pydicom.__file__).parent / "data").rglob("*"))


def by_pydicom(path: Path) -> Pixels:
    """The first frame by pydicom's functions alone; raises whatever they raise."""
    header = pydicom.dcmread(path, force=True)
    stored = pixel_array(header, index=0)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(stored, header) / (2 ** header.RedPaletteColorLookupTableDescriptor[2] - 1) * 255
    if header.SamplesPerPixel == 3:
        return stored / (2**header.BitsStored - 1) * 255
    values = apply_voi_lut(apply_modality_lut(stored, header), header).astype(float)
    low, high = values.min(), values.max()
    if "WindowWidth" in header:
        low, high = 0, 2**header.BitsStored - 1
        if header.PixelRepresentation:
            low, high = -(2 ** (header.BitsStored - 1)), 2 ** (header.BitsStored - 1) - 1
        slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
        low, high = low * slope + intercept, high * slope + intercept
    elif header.get("BitsStored", 64) <= 8:
        low, high = 0, 2**header.BitsStored - 1
    scaled = (values - low) / (high - low) * 255
    return (255 - scaled if header.PhotometricInterpretation == "MONOCHROME1" else scaled)[:, :, None]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # pydicom's, of its damaged files
def test_what_pydicom_reads_is_read_and_has_its_pixels() -> None:
    read, refusals = 0, 0
    for path in FILES:
        if not path.is_file() or path.suffix not in ("", ".dcm"):
            continue
        try:
            expected = by_pydicom(path)
        except Exception:
            refusals += 1
            assert refused(path).startswith("expected ")
            continue
        read += 1
        assert np.abs(read_pictures(path)[0].pixels - expected).max() < 1e-4, path.name
    assert read > 50
    assert refusals > 20
