"""Pictures and arrays as a run needs them; what is handled, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from answers.conftest import pictures
from qvit.answers.needs import Needs
from qvit.data.arrays import load_dataset
from qvit.data.options import ImportOptions
from qvit.errors import DataError, RunError
from qvit.training.folder import Run

GREY = Needs(8, 1, "binary", ("no", "yes"), "none", ImportOptions())
COLOUR = Needs(8, 3, "binary", ("no", "yes"), "none", ImportOptions())


def test_what_a_run_needs(run: Run) -> None:
    assert Needs.of(run) == Needs(12, 3, "multi-class", ("bright", "dark", "red"), "none", ImportOptions())


def test_a_run_of_an_earlier_version_has_numbers_for_names(run: Run) -> None:
    path = run.folder / "config.json"
    config = json.loads(path.read_text())
    del config["classes"]
    path.write_text(json.dumps(config))
    assert Needs.of(Run(run.folder)).classes == ("0", "1", "2")


def test_an_unfinished_run_is_refused(run: Run) -> None:
    (run.folder / "result.json").unlink()
    with pytest.raises(RunError, match=r"is not finished; go on with `qvit train … --resume`\.$"):
        Needs.of(Run(run.folder))


@pytest.mark.filterwarnings("ignore:.*groups are not known")
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pictures_become_what_an_import_makes_of_them(tmp_path: Path, fit: str) -> None:
    rng = np.random.default_rng(0)
    for place in range(24):
        path = tmp_path / "pictures" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)).save(path)
    options = ImportOptions(fit=fit)
    data = load_dataset(tmp_path / "pictures", size=8, root=tmp_path / "root", importing=options)
    needs = Needs(8, 3, "binary", ("a", "b"), "none", options)
    expected = {image.tobytes() for split in data.splits.values() for image in np.array(split.images)}
    found = {needs.squares(path)[0].tobytes() for path in (tmp_path / "pictures").rglob("*.png")}
    assert len(found) == 24
    assert found == expected


def test_grey_and_colour(tmp_path: Path) -> None:
    colour, grey = pictures(tmp_path / "colour", 1)[0], pictures(tmp_path / "grey", 1, channels=1)[0]
    Image.open(grey).convert("RGB").save(tmp_path / "saved.png")
    assert GREY.squares(tmp_path / "saved.png")[0].tolist() == GREY.squares(grey)[0].tolist()
    with pytest.raises(DataError, match=r"^expected a grey picture, found one in colour\. Give pictures like the"):
        GREY.squares(colour)
    with pytest.raises(DataError, match=r"^expected a picture in colour, found a grey one\. Give pictures like the"):
        COLOUR.squares(grey)
    as_rgb = Needs(8, 3, "binary", ("no", "yes"), "none", ImportOptions(channels="rgb"))
    assert as_rgb.squares(grey)[0].tolist() == np.repeat(GREY.squares(grey)[0], 3, axis=0).tolist()
    as_grey = Needs(8, 1, "binary", ("no", "yes"), "none", ImportOptions(channels="grey"))
    red, green, blue = COLOUR.squares(colour)[0].astype(int)
    assert as_grey.squares(colour)[0][0].tolist() == ((299 * red + 587 * green + 114 * blue + 500) // 1000).tolist()


def test_arrays_of_every_form_are_the_same_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    first = torch.from_numpy(image).permute(2, 0, 1)
    for given in (image, image[None], [image], Image.fromarray(image), first, first[None], [Image.fromarray(image)]):
        assert [found.tolist() for found in COLOUR.arrays(given)] == [first.tolist()]
    floats = image / 255
    for given in (floats, floats.astype(np.float32), first / 255, (first / 255).requires_grad_()):
        assert COLOUR.arrays(given)[0].tolist() == first.tolist()
    grey = image[:, :, 0]
    for given in (grey, grey[..., None], grey[None], [grey], Image.fromarray(grey), torch.from_numpy(grey)):
        assert [found.tolist() for found in GREY.arrays(given)] == [[grey.tolist()]]
    assert len(GREY.arrays(np.zeros((5, 8, 8), np.uint8))) == 5
    assert GREY.arrays(np.zeros((0, 8, 8), np.uint8)) == []


def test_larger_arrays_are_averaged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24), dtype=np.uint8)
    middle = image[:, 4:20].reshape(8, 2, 8, 2).mean(axis=(1, 3))
    assert GREY.arrays(image)[0][0].tolist() == np.rint(middle).tolist()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.full((8, 8), 300.0), r"numbers in \[0, 1\], got 300 to 300\. Images are given before any normalisation"),
        (np.full((8, 8), -0.1), r"got -0\.1 to -0\.1\. Images"),
        (np.full((8, 8), np.nan), r"got nan to nan"),
        (np.zeros((8, 8), np.uint16), r"got uint16\. Of 16 bits give array / 65535, of 12 bits array / 4095\.$"),
        (np.zeros((8, 8), complex), r"got complex128\.$"),
        (np.zeros(8, np.uint8), r"with c of 1 or 3, or tensors \(n, c, h, w\), got \(8,\)\. Move or leave out axes\.$"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"got \(2, 8, 8, 4\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), r"got \(2, 1, 8, 8\)"),
        (np.zeros((1, 8), np.uint8), r"got \(1, 8\)"),
        (Image.new("RGBA", (8, 8)), r"in mode L or RGB, got RGBA\. Use image\.convert\('RGB'\)\.$"),
        (np.array([["a", "b"]] * 2), r"got <U1\.$"),
        (None, r"got \(\)"),
        (torch.zeros(8, 8, dtype=torch.bfloat16), r"got Tensor that NumPy cannot take\. Give bytes, or float32\.$"),
        (torch.zeros(8, 8, device="meta"), r"got Tensor that NumPy cannot take"),
        ("a.png", r"got \(\)"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        GREY.arrays(images)


def test_all_frames_if_the_run_took_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def read(path: Path, **options: object) -> list[object]:
        asked.append(options)
        return []

    monkeypatch.setattr("qvit.answers.needs.read_pictures", read)
    Needs(8, 1, "binary", ("no", "yes"), "none", ImportOptions(frames="all", bits=12)).squares(tmp_path)
    assert asked == [{"frames": "all", "bits": 12}]
