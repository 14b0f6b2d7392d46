"""What is said of the bytes of a picture: the same as of its file, with the image as it is seen, and maps."""

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from answers.conftest import NAMES
from qvit.answers.maps import maps_of
from qvit.answers.predictor import load
from qvit.errors import ConfigError, DataError
from qvit.serve.desk import FRAMES, Desk, Limits
from serve.conftest import as_file, picture


def test_bytes_are_answered_as_their_file(desk: Desk, trained: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(as_file(picture(1, side=30)))
    [expected] = load(trained()).predict(path)
    told = desk.answer(path.read_bytes())
    [found] = told["answers"]
    assert told["frames"] == 1
    assert found["probabilities"] == expected.probabilities
    assert (found["label"], found["possible"], found["unlike"]) == (expected.label, expected.possible, expected.unlike)
    assert not {"source", "error"} & found.keys()


def test_the_image_is_shown_as_the_model_sees_it(desk: Desk) -> None:
    [found] = desk.answer(as_file(picture(1, side=30)))["answers"]
    kind, _, text = found["image"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as shown:
        assert shown.size == (12, 12)
        assert shown.mode == "RGB"


def test_maps_are_of_the_likeliest_class_or_of_the_one_that_is_asked_for(
    desk: Desk, trained: Callable[..., Path]
) -> None:
    content = as_file(picture(0))
    [found] = desk.answer(content)["answers"]
    likeliest = max(found["probabilities"], key=found["probabilities"].get)
    assert found["explained"] == likeliest
    other = next(name for name in NAMES if name != likeliest)
    [asked] = desk.answer(content, other)["answers"]
    assert asked["explained"] == other
    assert asked["maps"]["occlusion"] != found["maps"]["occlusion"]
    model = load(trained()).members[0].model
    expected = maps_of(model, picture(0).transpose(2, 0, 1).copy(), "multi-class", NAMES.index(other))
    for name, values in expected.shown.items():
        shown = np.array(asked["maps"][name])
        assert np.abs(shown).max() == 1
        np.testing.assert_allclose(shown, values / np.abs(values).max(), atol=1e-4)


def test_a_map_that_is_zero_everywhere_stays_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from qvit.answers import explaining as module

    real = module.maps_of

    def nothing(*given: object) -> object:
        found = real(*given)
        found.saliency[:] = 0
        return found

    monkeypatch.setattr(module, "maps_of", nothing)
    [found] = desk.answer(as_file(picture()))["answers"]
    assert not np.array(found["maps"]["saliency"]).any()


def test_a_grey_model_is_asked_with_grey(trained: Callable[..., Path]) -> None:
    desk = Desk(load(trained("binary", 1)))
    [found] = desk.answer(as_file(picture(channels=1)))["answers"]
    with Image.open(io.BytesIO(base64.b64decode(found["image"].partition(",")[2]))) as shown:
        assert shown.mode == "L"
    assert desk.about()["channels"] == 1


def test_of_many_frames_the_first_are_answered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    square = picture(0).transpose(2, 0, 1).copy()
    monkeypatch.setattr("qvit.answers.needs.Needs.squares_in", lambda *_, **__: [square] * 11)
    told = desk.answer(b"")
    assert told["frames"] == 11
    assert len(told["answers"]) == FRAMES == 8


def test_what_a_page_says_of_the_model(desk: Desk, trained: Callable[..., Path]) -> None:
    from qvit.training.folder import Run

    told, result = desk.about(), Run(trained()).result
    assert told["classes"] == [*NAMES]
    assert (told["model"], told["data"], told["size"], told["channels"]) == ("vit_4q1h", "squares", 12, 3)
    assert told["parameters"] == result.parameters
    assert told["measured"]["AUC"] == result.test.auc
    assert (told["sets"], told["megabytes"], told["notes"]) == (0.9, 0.05, [])
    assert told["calibrated"] is True


@pytest.mark.parametrize(
    ("content", "target", "why"),
    [
        (b"some text", None, "expected a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM file, found text"),
        (b"", None, "found an empty file"),
        (as_file(picture())[:-40], None, "expected a sound picture, found damage"),
        (as_file(picture(side=101)), None, "expected at most 0.01 megapixels, found 101 x 101. Scale it down"),
        (as_file(picture(channels=1)), None, "expected a picture in colour, found a grey one"),
        (as_file(picture()), "blue", r"Expected a class that the run knows \(bright, dark, red\), got 'blue'"),
    ],
)
def test_what_cannot_be_answered(desk: Desk, content: bytes, target: str | None, why: str) -> None:
    with pytest.raises(DataError, match=why):
        desk.answer(content, target)


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(trained: Callable[..., Path]) -> None:
    desk = Desk(load(trained()))
    content = bytearray(as_file(np.zeros((64, 64), np.uint8)))
    content[16:24] = struct.pack(">II", 6_000, 5_000)  # width and height in a PNG's header
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(DataError, match="expected at most 25 megapixels, found 6000 x 5000"):
        desk.answer(bytes(content))
    content[16:24] = struct.pack(">II", 60_000, 50_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(DataError, match="expected at most 25 megapixels, found many more"):
        desk.answer(bytes(content))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"megabytes": 0}, "megabytes must be above 0 and at most 1000, got 0"),
        ({"megabytes": float("inf")}, "megabytes must be above 0 and at most 1000, got inf"),
        ({"megapixels": 0}, "megapixels must be above 0 and at most 100, got 0"),
        ({"megapixels": 101}, "megapixels must be above 0 and at most 100, got 101"),
    ],
)
def test_limits_that_are_none(options: dict[str, float], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Limits(**options)
