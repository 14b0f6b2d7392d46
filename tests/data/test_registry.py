import dataclasses
import json
import subprocess
import sys

import medmnist
import pytest

from qvit.data.registry import DATASETS, file_name, get_info
from qvit.errors import ConfigError

OFFICIAL = [name for name, info in DATASETS.items() if not info.synthetic]


def test_the_twelve_flat_datasets_and_the_phantom() -> None:
    flat = [name for name in medmnist.INFO if not name.endswith("3d")]
    assert sorted(OFFICIAL) == sorted(flat)
    assert set(DATASETS) - set(OFFICIAL) == {"phantom"}
    assert all(name == info.name for name, info in DATASETS.items())


@pytest.mark.parametrize("name", OFFICIAL)
def test_row_agrees_with_medmnist(name: str) -> None:
    ours, theirs = get_info(name), medmnist.INFO[name]
    assert ours.title == theirs["python_class"]
    assert ours.medmnist_task == theirs["task"]
    assert ours.labels == tuple(theirs["label"][str(i)] for i in range(len(theirs["label"])))
    assert ours.num_classes == len(theirs["label"])
    assert ours.channels == theirs["n_channels"]
    assert ours.splits == theirs["n_samples"]
    assert ours.licence == theirs["license"]
    assert ours.sizes == (28, 64, 128, 224)
    for size in ours.sizes:
        suffix = "" if size == 28 else f"_{size}"
        assert ours.md5[size] == theirs[f"MD5{suffix}"]
        assert ours.url(size) == theirs[f"url{suffix}"]
    assert "MedMNIST v2" in ours.citation
    assert ours.citation.count(";") >= 1


def test_augmentation_never_swaps_a_label() -> None:
    for name, info in DATASETS.items():
        sided = any("left" in label for label in info.labels)
        assert (info.augment == "none") == sided, name
    assert {n for n, i in DATASETS.items() if i.augment == "mirror"} == {
        "breastmnist",
        "octmnist",
        "pneumoniamnist",
        "chestmnist",
    }


def test_file_names_and_mirrors() -> None:
    assert file_name("retinamnist") == "retinamnist.npz"
    assert file_name("retinamnist", 64) == "retinamnist_64.npz"
    url = get_info("retinamnist").url(64, base_url="http://127.0.0.1:1/x")
    assert url == "http://127.0.0.1:1/x/retinamnist_64.npz?download=1"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'retinmnist'. Did you mean 'retinamnist'\? .*phantom; or the path"):
        get_info("retinmnist")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("RetinaMNIST", "retinamnist"), ("RETINAMNIST", "retinamnist"), ("Phantom", "phantom"), ("PATH", "pathmnist")],
)
def test_the_suggestion_ignores_the_case_of_letters(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Unknown dataset '{typed}'\. Did you mean '{meant}'\?"):
        get_info(typed)


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_info("phantom").__setattr__("name", "other")


def test_importing_the_registry_is_light() -> None:
    code = "import sys, json, qvit.data.registry; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"torch", "pooch", "numpy"} & set(loaded)
