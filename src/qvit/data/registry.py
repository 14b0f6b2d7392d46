"""The datasets qvit knows, one declarative row each; nothing heavy is imported here.

Sizes, labels, checksums and licences are those of the `medmnist` package, version 3.0.2 (files: Zenodo record
10519652); a test compares every row with it. `phantom` is generated and needs no file.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qvit.errors import ConfigError, nearest

Task = Literal["binary", "multi-class", "multi-label", "ordinal"]

MEDMNIST_TASKS: Mapping[Task, str] = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "multi-label": "multi-label, binary-class",
    "ordinal": "ordinal-regression",
}
SIZES = (28, 64, 128, 224)  # sides in pixels of the official files
SPLITS = ("train", "val", "test")
TABLES = (".csv", ".tsv")  # endings of tables of pictures
BASE_URL = "https://zenodo.org/records/10519652/files/"
_BAR = " | "  # between the labels of a row; some labels contain commas
_MEDMNIST = "Yang et al., MedMNIST v2, Scientific Data 10:41 (2023)"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known about a dataset without opening its file.

    `labels` are the classes' names in order, `splits` the number of images of `train`, `val` and `test`,
    `md5` the checksum of the official file of each side length in pixels, `augment` the group of symmetries
    (see `qvit.data.augment`) that training uses unless told otherwise.
    """

    name: str
    title: str
    description: str
    task: Task
    labels: tuple[str, ...]
    channels: Literal[1, 3]
    splits: Mapping[str, int]
    md5: Mapping[int, str]
    licence: str
    citation: str
    augment: str
    synthetic: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels where an image can carry several."""
        return len(self.labels)

    @property
    def medmnist_task(self) -> str:
        """The task as MedMNIST spells it."""
        return MEDMNIST_TASKS[self.task]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side lengths in pixels of the official files; empty where there are none."""
        return tuple(self.md5)

    def url(self, size: int = 28, *, base_url: str | None = None) -> str:
        """Return the address of the official file of one side length in pixels."""
        return f"{(base_url or BASE_URL).rstrip('/')}/{file_name(self.name, size)}?download=1"


def file_name(name: str, size: int = 28) -> str:
    """Return the official file's name: `retinamnist.npz` at 28 pixels, `retinamnist_64.npz` at 64."""
    return f"{name}.npz" if size == 28 else f"{name}_{size}.npz"


def is_path(name: str | Path) -> bool:
    """Return whether a dataset's name is a path: it ends as a file or a table does, or has a folder in it."""
    text = os.fspath(name)
    return isinstance(name, Path) or text.lower().endswith((".npz", *TABLES)) or "/" in text or os.sep in text


def name_of(dataset: str | Path) -> str:
    """Return a dataset's name; for a path, that of the file without its ending, or of the folder."""
    if not is_path(dataset):
        return str(dataset)
    name = Path(os.path.normpath(dataset)).name
    if name in ("", ".", ".."):
        name = Path(os.path.realpath(dataset)).name or "data"
    ending = next((ending for ending in (".npz", *TABLES) if name.lower().endswith(ending)), "")
    return name.removesuffix(name[len(name) - len(ending) :]) or name


def get_info(name: str) -> DatasetInfo:
    """Return the registry's row of a dataset.

    Raises ConfigError for a name that is not in `DATASETS`.
    """
    if name not in DATASETS:
        known = f"Expected one of: {', '.join(DATASETS)}; or the path of a folder or table of pictures, or .npz file."
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises for some names
            known = f"For the folder of that name write ./{name}."
        raise ConfigError(f"Unknown dataset '{name}'.{nearest(name.lower(), DATASETS)} {known}")
    return DATASETS[name]


def _row(
    title: str,
    task: Task,
    channels: Literal[1, 3],
    *,
    splits: tuple[int, int, int],
    md5: tuple[str, str, str, str],
    labels: str,
    description: str,
    source: str,
    augment: str,
    licence: str = "CC BY 4.0",
) -> DatasetInfo:
    return DatasetInfo(
        name=title.lower(),
        title=title,
        description=description,
        task=task,
        labels=tuple(labels.split(_BAR)),
        channels=channels,
        splits=dict(zip(("train", "val", "test"), splits, strict=True)),
        md5=dict(zip(SIZES, md5, strict=True)),
        licence=licence,
        citation=f"{_MEDMNIST}; {source}",
        augment=augment,
    )


_ORGANS = (
    "bladder | femur-left | femur-right | heart | kidney-left | kidney-right | liver | lung-left | lung-right"
    " | pancreas | spleen"
)
_LITS = "Bilic et al., LiTS, Medical Image Analysis 84 (2023); Xu et al., IEEE TMI 38 (2019)"

# `augment` names the largest group of symmetries that keeps an image plausible and its label true:
#   d4      no fixed up or down (microscopy, dermatoscopy, a fundus);
#   mirror  up and down mean something (layers of a retina, a chest, depth and acoustic shadow in ultrasound) but
#           left and right can be swapped;
#   none    classes tell left from right (kidney-left, kidney-right): a mirror image changes the label.
_ROWS = (
    _row(
        "PathMNIST",
        "multi-class",
        3,
        splits=(89996, 10004, 7180),
        md5=(
            "a8b06965200029087d5bd730944a56c1",
            "55aa9c1e0525abe5a6b9d8343a507616",
            "ac42d08fb904d92c244187169d1fd1d9",
            "2c51a510bcdc9cf8ddb2af93af1eadec",
        ),
        labels=(
            "adipose | background | debris | lymphocytes | mucus | smooth muscle | normal colon mucosa |"
            " cancer-associated stroma | colorectal adenocarcinoma epithelium"
        ),
        description="Patches of stained colorectal tissue, nine kinds; the test set is from another clinic",
        source="Kather et al., PLOS Medicine 16 (2019)",
        augment="d4",
    ),
    _row(
        "ChestMNIST",
        "multi-label",
        1,
        splits=(78468, 11219, 22433),
        md5=(
            "02c8a6516a18b556561a56cbdd36c4a8",
            "9de6cd0b934ebb5b7426cfba5efbae16",
            "db107e5590b27930b62dbaf558aebee3",
            "45bd33e6f06c3e8cdb481c74a89152aa",
        ),
        labels=(
            "atelectasis | cardiomegaly | effusion | infiltration | mass | nodule | pneumonia |"
            " pneumothorax | consolidation | edema | emphysema | fibrosis | pleural | hernia"
        ),
        description="Frontal chest X-rays with up to fourteen findings mined from reports",
        source="Wang et al., ChestX-ray8, CVPR (2017)",
        augment="mirror",
    ),
    _row(
        "DermaMNIST",
        "multi-class",
        3,
        splits=(7007, 1003, 2005),
        md5=(
            "0744692d530f8e62ec473284d019b0c7",
            "b70a2f5635c6199aeaa28c31d7202e1f",
            "2defd784463fa5243564e855ed717de1",
            "8974907d8e169bef5f5b96bc506ae45d",
        ),
        labels=(
            "actinic keratoses and intraepithelial carcinoma | basal cell carcinoma | benign"
            " keratosis-like lesions | dermatofibroma | melanoma | melanocytic nevi | vascular lesions"
        ),
        description="Dermatoscopic pictures of pigmented skin lesions, seven diagnoses",
        source="Tschandl et al., HAM10000, Scientific Data 5 (2018); Codella et al., arXiv 1902.03368 (2019)",
        augment="d4",
        licence="CC BY-NC 4.0",
    ),
    _row(
        "OCTMNIST",
        "multi-class",
        1,
        splits=(97477, 10832, 1000),
        md5=(
            "c68d92d5b585d8d81f7112f81e2d0842",
            "e229e9440236b774d9f0dfef9d07bdaf",
            "0a97e76651ace45c5d943ee3f65b63ae",
            "abc493b6d529d5de7569faaef2773ba3",
        ),
        labels="choroidal neovascularization | diabetic macular edema | drusen | normal",
        description="Optical coherence tomography sections of the retina, three diseases and normal",
        source="Kermany et al., Cell 172 (2018)",
        augment="mirror",
    ),
    _row(
        "PneumoniaMNIST",
        "binary",
        1,
        splits=(4708, 524, 624),
        md5=(
            "28209eda62fecd6e6a2d98b1501bb15f",
            "8f4eceb4ccffa70c672198ea285246c6",
            "05b46931834c231683c68f40c47b2971",
            "d6a3c71de1b945ea11211b03746c1fe1",
        ),
        labels="normal | pneumonia",
        description="Chest X-rays of children, pneumonia or normal",
        source="Kermany et al., Cell 172 (2018)",
        augment="mirror",
    ),
    _row(
        "RetinaMNIST",
        "ordinal",
        3,
        splits=(1080, 120, 400),
        md5=(
            "bd4c0672f1bba3e3a89f0e4e876791e4",
            "afda852cc34dcda56f86ad2b2457dbcc",
            "e48e916a24454daf90583d4e6efb1a18",
            "eae7e3b6f3fcbda4ae613ebdcbe35348",
        ),
        labels="0 | 1 | 2 | 3 | 4",
        description="Fundus photographs, five grades of diabetic retinopathy",
        source="Liu et al., DeepDRiD, Patterns 3 (2022)",
        augment="d4",
    ),
    _row(
        "BreastMNIST",
        "binary",
        1,
        splits=(546, 78, 156),
        md5=(
            "750601b1f35ba3300ea97c75c52ff8f6",
            "742edef2a1fd1524b2efff4bd7ba9364",
            "363e4b3f8d712e9b5de15470a2aaadf1",
            "b56378a6eefa9fed602bb16d192d4c8b",
        ),
        labels="malignant | normal, benign",
        description="Breast ultrasound, malignant or not",
        source="Al-Dhabyani et al., Data in Brief 28 (2020)",
        augment="mirror",
    ),
    _row(
        "BloodMNIST",
        "multi-class",
        3,
        splits=(11959, 1712, 3421),
        md5=(
            "7053d0359d879ad8a5505303e11de1dc",
            "2b94928a2ae4916078ca51e05b6b800b",
            "adace1e0ed228fccda1f39692059dd4c",
            "b718ff6835fcbdb22ba9eacccd7b2601",
        ),
        labels=(
            "basophil | eosinophil | erythroblast | immature granulocytes(myelocytes, metamyelocytes and"
            " promyelocytes) | lymphocyte | monocyte | neutrophil | platelet"
        ),
        description="Single stained blood cells of healthy donors, eight kinds",
        source="Acevedo et al., Data in Brief 30 (2020)",
        augment="d4",
    ),
    _row(
        "TissueMNIST",
        "multi-class",
        1,
        splits=(165466, 23640, 47280),
        md5=(
            "ebe78ee8b05294063de985d821c1c34b",
            "123ece2eba09d0aa5d698fda57103344",
            "61b955355d7425a89687b06cca3ce0c2",
            "b077128c4a949f0a4eb01517f9037b9c",
        ),
        labels=(
            "Collecting Duct, Connecting Tubule | Distal Convoluted Tubule | Glomerular endothelial cells"
            " | Interstitial endothelial cells | Leukocytes | Podocytes | Proximal Tubule Segments | Thick"
            " Ascending Limb"
        ),
        description="Kidney cortex cells in fluorescence microscopy, eight kinds",
        source="Ljosa et al., Nature Methods 9 (2012); Woloshuk et al., Cytometry A 99 (2021)",
        augment="d4",
    ),
    _row(
        "OrganAMNIST",
        "multi-class",
        1,
        splits=(34561, 6491, 17778),
        md5=(
            "68e3f8846a6bd62f0c9bf841c0d9eacc",
            "2dcccc29b88e6da5a01161ef20cda288",
            "eeae80d0a227a8d099027e1b3cfd3b60",
            "50747347e05c87dd3aaf92c49f9f3170",
        ),
        labels=_ORGANS,
        description="Eleven organs in axial abdominal CT sections",
        source=_LITS,
        augment="none",
    ),
    _row(
        "OrganCMNIST",
        "multi-class",
        1,
        splits=(12975, 2392, 8216),
        md5=(
            "b9ceb9546e10131b32923c5bbeaea2b1",
            "3ce34a8724ea6f548e6db4744d03b6a9",
            "773c1f009daa3fe5d9a2a201b2a7ed94",
            "050f5e875dc056f6768abf94ec9995d1",
        ),
        labels=_ORGANS,
        description="Eleven organs in coronal abdominal CT sections",
        source=_LITS,
        augment="none",
    ),
    _row(
        "OrganSMNIST",
        "multi-class",
        1,
        splits=(13932, 2452, 8827),
        md5=(
            "9ab87b696fb54e2a387ebe992d6ed5f1",
            "53a6d115339d874c25e309a994ff46d3",
            "ded0c5fa01a95dc4978b956f613e9b8e",
            "b354719e553fbbb2513d5533f52a4cb1",
        ),
        labels=_ORGANS,
        description="Eleven organs in sagittal abdominal CT sections",
        source=_LITS,
        augment="none",
    ),
    DatasetInfo(
        name="phantom",
        title="Phantom",
        description="Synthetic stained blood cells, five kinds, made from a seed; for demonstrations",
        task="multi-class",
        labels=("lymphocyte", "monocyte", "neutrophil", "eosinophil", "blast"),
        channels=3,
        splits={"train": 2000, "val": 400, "test": 800},
        md5={},
        licence="Apache-2.0",
        citation="",
        augment="d4",
        synthetic=True,
    ),
)

DATASETS: Mapping[str, DatasetInfo] = {row.name: row for row in _ROWS}
