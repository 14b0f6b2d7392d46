"""Menus: read or refused in one line; candidates follow from them by the seed, and fit."""

from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from qvit.data.arrays import Dataset, Split
from qvit.data.registry import get_info
from qvit.errors import ConfigError
from qvit.models.zoo import count_parameters, model_config
from qvit.training.options import resolve
from qvit.training.recipes import read_recipe
from qvit.tune.menu import USUAL, Kitchen, read_menu
from tune.conftest import MENU

Make = Callable[..., Kitchen]
ENTRY = "entries: [{recipe: defaults}]\n"


def test_entries_stand_as_they_are(kitchen: Make) -> None:
    found = kitchen(model=None).entries()
    assert [(one.name, one.about) for one in found] == [
        ("defaults", "defaults"),
        ("defaults lr=0.02", "defaults with lr=0.02"),
        ("defaults cosine_4q1h", "defaults"),
    ]
    assert found[0].options == {"model": "qvit_4q2h", "epochs": 1, "keep": "last", "tta": "always"}
    assert found[1].options == found[0].options | {"lr": 0.02}
    assert found[2].options["model"] == "cosine_4q1h"
    for one in found:
        told = model_config(one.options["model"], in_chans=3, num_classes=3, img_size=12)
        assert one.parameters == count_parameters(told)


def test_one_kind_of_model_is_all_that_is_tried(kitchen: Make) -> None:
    made = kitchen(model="vit_4q1h")
    assert [one.name for one in made.entries()] == ["defaults", "defaults lr=0.02"]
    draws = list(islice(made.draws(0, made.entries()), 30))
    assert {one.options["model"] for one in draws} == {"vit_4q1h", "vit_4q2h"}
    both = {one.options["model"] for one in islice(kitchen(model=None).draws(0, []), 30)}
    assert both == {f"{kind}_{size}" for kind in ("vit", "cosine") for size in ("4q1h", "4q2h")}
    alone = kitchen(model="resnet18", most=10**9, width=0.0625)
    assert {one.options["model"] for one in islice(alone.draws(0, []), 3)} == {"resnet18"}


def test_draws_depend_on_the_seed_and_are_all_different(kitchen: Make) -> None:
    made = kitchen()
    entries = made.entries()
    one, again, other = (list(islice(made.draws(seed, entries), 20)) for seed in (0, 0, 1))
    assert one == again != other
    options = [one.options for one in [*entries, *one]]
    assert all(options.count(each) == 1 for each in options)
    assert [each.name for each in one[:3]] == ["draw-1", "draw-2", "draw-3"]
    changed = [set(each.options.items()) - set(entries[0].options.items()) for each in one]
    assert {len({key for key, _ in some} - {"model"}) for some in changed} == {0, 1, 2}, "fewer than two of each kind"
    assert one[0].about.startswith("defaults with ")


def test_models_are_drawn_several_variants_of(kitchen: Make) -> None:
    own = {"model", "mlp_dim"}
    draws = [{key: one.options.get(key) for key in own} for one in islice(kitchen(model=None).draws(0, []), 30)]
    changes = sum(one != other for one, other in pairwise(draws))
    assert 8 <= changes <= 20, "three at a time, but for what was there before"


def test_draws_end_when_there_are_no_others(kitchen: Make) -> None:
    text = ENTRY + "draws: {recipes: [defaults], options: {lr: [0.005, 0.02]}}"  # the default is no change
    made = kitchen(text)
    found = sorted(one.about for one in made.draws(0, made.entries()))
    assert found == ["defaults with lr=0.02"]
    assert list(kitchen(ENTRY).draws(0, [])) == []


def test_what_does_not_fit_is_drawn_again(kitchen: Make) -> None:
    text = ENTRY + "draws: {recipes: [defaults], options: {loss: [bce, ce], patch_size: [5, 6]}}"  # of 12 pixels
    assert [one.about for one in kitchen(text).draws(0, [])] == ["defaults with patch_size=6, loss=ce"]


def test_parameters_are_limited(kitchen: Make) -> None:
    usual = kitchen(model="vit_4q1h")
    assert usual.most == USUAL
    large = kitchen(model="vit_8q2h")
    assert large.most == large.first.parameters > USUAL, "the defaults are always within"
    few = kitchen(model="vit_4q1h", most=usual.first.parameters - 1)
    assert few.entries() == [few.first], "what others are compared with takes part"
    draws = list(few.draws(0, few.entries()))
    assert draws
    assert all(one.parameters < usual.first.parameters for one in draws)
    with pytest.raises(ConfigError) as caught:
        kitchen(ENTRY, most=3).entries()
    assert str(caught.value) == (
        f"No recipe of the menu has at most 3 parameters on this dataset: the defaults have "
        f"{usual.first.parameters:,}. Allow more with --parameters."
    )


def test_sizes_that_images_do_not_allow_are_left_out(kitchen: Make) -> None:
    text = "entries: [{recipe: defaults}, {recipe: defaults, options: {patch_size: 5}}]"
    assert [one.name for one in kitchen(text).entries()] == ["defaults"]


def test_baselines_take_no_options_of_the_others(kitchen: Make) -> None:
    [one] = kitchen(ENTRY + "baselines: [vit_8q1h]", depth=2).baselines()
    assert one.baseline
    assert (one.name, one.about) == ("vit_8q1h", "a plain baseline")
    assert one.options == {"model": "vit_8q1h", "keep": "last", "tta": "always"}


def test_options_are_those_of_runs(kitchen: Make, npz: Path) -> None:
    made = kitchen(lr=0.5)
    [first] = made.entries()  # the other differs in the rate alone
    assert first.options["lr"] == 0.5, "what is given stands above recipes and changes"
    assert resolve(made.with_data(first.options)).dataset == str(npz)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "The menu {path} must hold `key: value` lines, got [1]."),
        ("entry: []", "The menu {path} has no key 'entry'. Did you mean 'entries'? Known: entries, baselines, draws."),
        ("draws: {}", "The menu {path} has no entries; the first is what others are compared with."),
        ("entries: 3", "entries of the menu must be a list, such as [1, 2], got 3."),
        ("entries: [3]", "an entry of the menu must hold `key: value` lines, got 3."),
        (
            "entries: [{model: a}]",
            "An entry of the menu needs a recipe, such as `recipe: defaults`, got {{'model': 'a'}}.",
        ),
        (
            "entries: [{recipe: defaults, options: {lrr: 1}}]",
            "The menu has the option 'lrr', which no recipe has. Did you mean 'lr'?",
        ),
        (
            ENTRY + "draws: {options: {seed: [1]}}",
            "The menu has the option 'seed', which no recipe has. Did you mean 'split_seed'?",
        ),
        (ENTRY + "draws: {options: {lr: 1}}", "lr of the menu must be a list, such as [1, 2], got 1."),
        (
            ENTRY + "draws: {variants: 0}",
            "variants of the menu must be whole numbers of at least 1, got 0.",
        ),
        (
            ENTRY + "draws: {changes: [0]}",
            "changes of the menu must be whole numbers of at least 1, got 0.",
        ),
        (
            ENTRY + "draws: {kinds: [qvt]}",
            "There is no kind 'qvt'. Did you mean 'qvit'? Known: qvit, {kinds}.",
        ),
    ],
)
def test_what_is_no_menu_is_told(menu_file: Path, text: str, told: str) -> None:
    from qvit.models.zoo import KINDS

    menu_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_menu(menu_file)
    known = ", ".join(kind for kind in KINDS if kind != "qvit")
    assert str(caught.value) == told.format(path=menu_file, kinds=known)


def test_a_missing_menu_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_menu(tmp_path / "none.yaml")
    told = f"There is no file {tmp_path / 'none.yaml'}."
    assert str(caught.value) == f"{told} Give the YAML file of a menu, or leave --menu out."


def test_the_small_menu_is_read_whole(menu_file: Path) -> None:
    found = read_menu(menu_file)
    assert menu_file.read_text() == MENU
    assert [entry.model for entry in found.entries] == [None, None, "cosine_4q1h"]
    assert (found.changes, found.variants, found.kinds, found.sizes) == ((1, 2), 3, ("vit", "cosine"), ("4q1h", "4q2h"))
    assert found.options == {"lr": [0.001, 0.003, 0.005], "mlp_dim": [2, 4, 6], "weight_decay": [0.0, 0.1]}


@pytest.mark.long
@pytest.mark.parametrize("name", ["breastmnist", "retinamnist", "chestmnist"])
def test_all_of_the_menu_that_comes_with_qvit_fits(name: str) -> None:
    """Entries, baselines, and each value of each option that is drawn."""
    info = get_info(name)
    split = Split(np.zeros((2, info.channels, 28, 28), np.uint8), np.zeros((2, 1), np.int64))
    data, menu = Dataset(info, 28, split, split, split), read_menu()
    made = Kitchen(menu, data, {"dataset": name}, model=None, most=10_000)
    assert len(made.entries()) == len(menu.entries)
    assert [one.name for one in made.baselines()] == list(menu.baselines)
    for key, values in menu.options.items():
        assert len(values) == len(set(values)) > 1
        fitting = [value for value in values if not (key == "loss" and value == "ce+emd" and info.task != "ordinal")]
        for value in fitting:
            made.candidate("one", {key: value}, read_recipe("defaults"))
    usual = Kitchen(menu, data, {"dataset": name}, model=None, most=None)
    assert usual.most == max(USUAL, usual.first.parameters)
    assert len(list(islice(usual.draws(0, usual.entries()), 40))) == 40
