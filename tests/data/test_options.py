"""Options of imports: what they must be is tried with the options of a run, in training/test_options."""

import pytest

from qvit.data.options import DEFAULTS, IMPORT_KEYS, LARGEST_SIZE, ImportOptions, check_side
from qvit.errors import ConfigError


def test_what_was_changed_is_told_by_name() -> None:
    assert DEFAULTS.changed == {}
    assert ImportOptions(fit="pad", max_bad=2).changed == {"fit": "pad", "max_bad": 2}
    assert ImportOptions(shares=(0.5, 0.25, 0.25)).changed == {"shares": [0.5, 0.25, 0.25]}, "as JSON has it"
    assert IMPORT_KEYS[:2] == ("label", "group_by")


def test_data_that_take_no_options_refuse_them() -> None:
    DEFAULTS.refuse_for("own.npz")
    with pytest.raises(ConfigError) as caught:
        ImportOptions(label="sex", split_seed=1).refuse_for("own.npz")
    assert str(caught.value) == (
        "own.npz takes no option label, split_seed: these are for folders and tables of pictures."
    )


def test_sizes_have_bounds() -> None:
    for size in (1, LARGEST_SIZE):
        check_side(size)
    for size in (0, LARGEST_SIZE + 1):
        with pytest.raises(ConfigError, match=rf"^size must be from 1 to 10,000 pixels, got {size}\.$"):
            check_side(size)
