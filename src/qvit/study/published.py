"""Published test figures on MedMNIST, and what the paper that all this starts from says of itself.

AUC and ACC by dataset, None where not reported. MedMNIST v2 is Yang et al. 2023 (Scientific Data 10:41), official
table; MedMamba, MedViT and MedViTV2 are from their own papers. Parameters are those that these papers give, in
millions, for networks whose size is theirs.
"""

from dataclasses import dataclass

MEDMNIST = "MedMNIST v2"
_NAMES = (
    "pathmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
    "chestmnist",
)


@dataclass(frozen=True)
class Published:
    """One published model: test (AUC, ACC) by dataset, and its parameters in millions if it says."""

    name: str
    source: str
    figures: dict[str, tuple[float | None, float | None]]
    parameters: float | None = None

    def on(self, dataset: str) -> tuple[float | None, float | None]:
        """Return test AUC and ACC on a dataset."""
        return self.figures.get(dataset, (None, None))


def _figures(row: str) -> dict[str, tuple[float | None, float | None]]:
    """Read `.983/.907 …` in the order of `_NAMES`; – is not reported."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, cell in zip(_NAMES, row.split(), strict=False):
        auc, _, acc = cell.partition("/")
        values = tuple(None if text in ("–", "") else float(text) for text in (auc, acc))
        if any(value is not None for value in values):
            found[name] = values[0], values[1]
    return found


PUBLISHED = (
    Published(
        "ResNet-18 (28)",
        MEDMNIST,
        _figures(
            ".983/.907 .917/.735 .943/.743 .944/.854 .717/.524 .901/.863 .998/.958 .930/.676 .997/.935 .992/.900 "
            ".972/.782 .768/.947"
        ),
        11.2,
    ),
    Published(
        "ResNet-18 (224)",
        MEDMNIST,
        _figures(
            ".989/.909 .920/.754 .958/.763 .956/.864 .710/.493 .891/.833 .998/.963 .933/.681 .998/.951 .994/.920 "
            ".974/.778 .773/.947"
        ),
        11.2,
    ),
    Published(
        "ResNet-50 (28)",
        MEDMNIST,
        _figures(
            ".990/.911 .913/.735 .952/.762 .948/.854 .726/.528 .857/.812 .997/.956 .931/.680 .997/.935 .992/.905 "
            ".972/.770 .769/.947"
        ),
        23.5,
    ),
    Published(
        "ResNet-50 (224)",
        MEDMNIST,
        _figures(
            ".989/.892 .912/.731 .958/.776 .962/.884 .716/.511 .866/.842 .997/.950 .932/.680 .998/.947 .993/.911 "
            ".975/.785 .773/.948"
        ),
        23.5,
    ),
    Published(
        "auto-sklearn",
        MEDMNIST,
        _figures(
            ".934/.716 .902/.719 .887/.601 .942/.855 .690/.515 .836/.803 .984/.878 .828/.532 .963/.762 .976/.829 "
            ".945/.672 .649/.779"
        ),
    ),
    Published(
        "AutoKeras",
        MEDMNIST,
        _figures(
            ".959/.834 .915/.749 .955/.763 .947/.878 .719/.503 .871/.831 .998/.961 .941/.703 .994/.905 .990/.879 "
            ".974/.813 .742/.937"
        ),
    ),
    Published(
        "Google AutoML Vision",
        MEDMNIST,
        _figures(
            ".944/.728 .914/.768 .963/.771 .991/.946 .750/.531 .919/.861 .998/.966 .924/.673 .990/.886 .988/.877 "
            ".964/.749 .778/.948"
        ),
    ),
    Published(
        "MedMamba-T",
        "MedMamba",
        _figures(
            ".997/.953 .917/.779 .992/.918 .965/.899 .747/.543 .825/.853 .999/.978 – .998/.946 .997/.927 .982/.819 –"
        ),
        14.5,
    ),
    Published("MedMamba-X", "MedMamba", {"retinamnist": (0.719, 0.570)}),
    Published(
        "MedViT-S",
        "MedViT",
        _figures(".993/.942 .937/.780 .960/.782 .995/.961 .773/.561 .938/.897 .997/.951 – – – – –"),
        23.6,
    ),
    Published(
        "MedViTV2-L",
        "MedViTV2",
        _figures("–/.977 –/.817 –/.952 –/.973 –/.578 –/.910 –/.987 –/.716 –/.973 –/.961 –/.851 –/.967"),
    ),
)

# What the paper reports of its own models (arXiv:2503.07294v2), means over its eight datasets, from scratch.
PAPER = {"source": "arXiv:2503.07294v2", "qvit": (0.863, 0.710), "vit_matched": (0.846, 0.687)}
PAPER_DATASETS = (
    "pathmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "organcmnist",
)
