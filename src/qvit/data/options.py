"""How a folder or a table of pictures becomes a dataset."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from qvit.errors import ConfigError
from qvit.validate import require

MOST_BAD = 1_000_000
LARGEST_SEED = 2**63 - 1  # that torch and SQLite both take
LARGEST_SIZE = 10_000  # pixels


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import; an .npz file and the official datasets take none of them.

    `label` names the column, or columns, of a table that hold the classes. `group_by` names its column of groups, or is
    a pattern for the files' paths (see `listing.list_folder`); images of one group, such as a patient, stand in one
    split. `fit` makes a picture square: "crop" cuts the middle out, "pad" adds black. `channels` "auto" takes pictures
    as they are and refuses a mixture of grey and colour, "grey" and "rgb" convert. Pictures without a split are
    divided at random by `shares` (train, val, test) and `split_seed`. `frames` says which images of a DICOM file to
    take. `bits` is the depth of pictures that are stored with 16 bits and use fewer, such as 12: then 4095 becomes
    white, and not 65535. Up to `max_bad` files that cannot be read are left out.
    """

    label: str | None = None
    group_by: str | None = None
    fit: Literal["crop", "pad"] = "crop"
    channels: Literal["auto", "grey", "rgb"] = "auto"
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    split_seed: int = 0
    frames: Literal["first", "all"] = "first"
    bits: int = 16
    max_bad: int = 0

    def __post_init__(self) -> None:
        positive = all(math.isfinite(share) and share > 0 for share in self.shares)
        sums = positive and math.isclose(sum(self.shares), 1.0, abs_tol=1e-6)
        require(sums, "shares", "three numbers above 0 with the sum 1", self.shares)
        require(0 <= self.split_seed <= LARGEST_SEED, "split_seed", f"from 0 to {LARGEST_SEED}", self.split_seed)
        require(8 <= self.bits <= 16, "bits", "from 8 to 16", self.bits)
        require(0 <= self.max_bad <= MOST_BAD, "max_bad", f"from 0 to {MOST_BAD:,}", self.max_bad)

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from the defaults, by name, as JSON keeps them."""
        changed = {key: value for key, value in asdict(self).items() if value != asdict(DEFAULTS)[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}

    def refuse_for(self, what: str) -> None:
        """Raise ConfigError if any option is set, for data that takes none."""
        if self.changed:
            raise ConfigError(
                f"{what} takes no option {', '.join(self.changed)}: these are for folders and tables of pictures."
            )


def check_side(size: int) -> None:
    """Raise ConfigError for a size that no image has."""
    if not 1 <= size <= LARGEST_SIZE:
        raise ConfigError(f"size must be from 1 to {LARGEST_SIZE:,} pixels, got {size}.")


DEFAULTS = ImportOptions()
IMPORT_KEYS = tuple(field.name for field in fields(ImportOptions))
