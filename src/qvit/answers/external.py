"""A trained model tested on other data than it was made with: another hospital's folder, table or file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from qvit.answers.members import ask, ask_files, ask_files_of, key_of, open_member
from qvit.answers.needs import Needs
from qvit.answers.reading import in_parts
from qvit.answers.spread import in_order
from qvit.data.arrays import load_dataset
from qvit.data.npz import given_path
from qvit.data.options import ImportOptions
from qvit.data.registry import SPLITS, is_path
from qvit.data.source import list_pictures
from qvit.errors import ConfigError, DataError
from qvit.training.folder import Run
from qvit.training.measured import Measured, Predicted, measure

SHOWN = 5  # files that a message names
_PART = 4096  # images in memory at a time


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images that were predicted: `scores` (n, c) by the model's classes, `labels` (n, k) by those of the data, which
    `classes` names, the `groups` of the images if known, and files that could not be read, `broken`.
    """

    scores: Float[np.ndarray, "n c"]
    labels: Int64[np.ndarray, "n k"]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None
    broken: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class External:
    """What an external test has shown.

    `measured` is of the images whose classes the model knows. `absent` are classes of the model that the data lack,
    `unknown` those of the data that the model does not know, with the number of images that were left out; `broken`
    files that could not be read.
    """

    measured: Measured
    absent: tuple[str, ...]
    unknown: Mapping[str, int]
    broken: tuple[str, ...]


def evaluate_external(
    run: Run,
    data: str | Path,
    *,
    split: str | None = None,
    label: str | None = None,
    group_by: str | None = None,
    root: str | Path | None = None,
) -> External:
    """Test a run on other data: a folder or table of pictures, an .npz file, or an official dataset by its name.

    Classes are matched by their names, without regard to case; of several labels, those that both have are measured.
    `split` says which images are taken; without it, all pictures of a folder or table that has no splits, and else
    those of test. `label` and `group_by` are those of an import.

    Raises DataError for data without any class of the model, or of one class alone, and as importing them would;
    ConfigError for a split that there is not.
    """
    needs = Needs.of(run)
    if split is not None and split not in SPLITS:
        raise ConfigError(f"Unknown split '{split}'. Expected one of: {', '.join(SPLITS)}.")
    options = ImportOptions(label=label, group_by=group_by)
    path = given_path(data) if is_path(data) else None
    if path is not None and path.suffix != ".npz":
        found = _pictures(run, needs, path, split, options)
    else:
        options.refuse_for(str(data))
        found = _arrays(run, needs, data if path is None else path, split or "test", root)
    return _measured(found, needs, str(data))


def _pictures(run: Run, needs: Needs, path: Path, split: str | None, options: ImportOptions) -> Labelled:
    listing = list_pictures(path, options)
    if listing.sides is None and split is not None:
        raise ConfigError(f"{path} has no splits, and split='{split}' was asked for. Leave the split out.")
    sides = np.array(listing.sides or ["test"] * len(listing.files))
    chosen = np.flatnonzero(sides == (split or "test"))
    members = [open_member(run)]
    parts, many = in_parts(((str(listing.folder / listing.files[number]), None) for number in chosen), needs)
    there = partial(ask_files_of, key_of(members), Path.cwd()) if many else None
    scores, broken = [], []
    good: list[int] = []
    for found in in_order(parts, partial(ask_files, members), there):
        block = found.block
        rows = [*zip(block.files, block.sources, block.errors, strict=True)]
        good += [place for place, _, error in rows if error is None]
        broken += [f"{source}: {error}" for _, source, error in rows if error is not None]
        if found.asked is not None:
            scores.append(found.asked.scores)
    if not good:
        why = "; ".join(broken[:SHOWN]) or f"no picture in {split or 'test'}"
        raise DataError(f"{path}: expected pictures that can be read, found none ({why}).")
    files = chosen[good]
    groups = None if listing.groups is None else tuple(listing.groups[file] for file in files)
    return Labelled(np.concatenate(scores), listing.labels[files], listing.classes, groups, tuple(broken))


def _arrays(run: Run, needs: Needs, name: str | Path, split: str, root: str | Path | None) -> Labelled:
    data = load_dataset(name, size=needs.size, root=root)
    images = data[split]
    if images.images.shape[1] != needs.channels:
        kinds = {1: "grey", 3: "in colour"}
        expected, found = kinds[needs.channels], kinds[images.images.shape[1]]
        raise DataError(f"{name}: expected images {expected}, as the run was trained on, found them {found}.")
    members, scores = [open_member(run)], []
    for start in range(0, len(images), _PART):
        part = images.batch(np.arange(start, min(start + _PART, len(images))))[0].numpy()
        scores.append(ask(members, part).scores)
    groups = None if data.groups is None else tuple(data.groups[split].tolist())
    return Labelled(np.concatenate(scores), images.labels, tuple(data.info.labels), groups, ())


def _measured(found: Labelled, needs: Needs, name: str) -> External:
    theirs = _matched(found.classes, needs.classes)
    if all(number is None for number in theirs):
        raise DataError(
            f"{name}: expected classes that the run knows ({', '.join(needs.classes)}), found "
            f"{', '.join(found.classes)}. Rename them, or leave them out."
        )
    absent = tuple(label for number, label in enumerate(needs.classes) if number not in theirs)
    multi_label = needs.task == "multi-label"
    if multi_label != (found.labels.shape[1] > 1):
        several, one = ("several labels", "one class") if multi_label else ("one class", "several labels")
        raise DataError(f"{name}: expected {several} of each image, as the run was trained on, found {one}.")
    if multi_label:
        both = [(column, number) for column, number in enumerate(theirs) if number is not None]
        labels, scores = found.labels[:, [c for c, _ in both]], found.scores[:, [n for _, n in both]]
        known = np.ones(len(labels), bool)
        unknown = {found.classes[c]: int(found.labels[:, c].sum()) for c, number in enumerate(theirs) if number is None}
        classes = tuple(needs.classes[number] for _, number in both)
    else:
        numbers = np.array([-1 if number is None else number for number in theirs])[found.labels[:, 0]]
        known = numbers >= 0
        labels, scores, classes = numbers[known, None], found.scores[known], needs.classes
        counts = Counter(found.classes[label] for label in found.labels[~known, 0].tolist())
        unknown = {label: counts[label] for label, number in zip(found.classes, theirs, strict=True) if number is None}
    if not len(labels) or (labels == labels[0]).all():
        seen = ", ".join(classes[label] for label in np.unique(labels)) if not multi_label else "equal labels"
        raise DataError(f"{name}: expected images of at least two classes that the run knows, found {seen or 'none'}.")
    groups = None if found.groups is None else np.array(found.groups)[known]
    measured = measure(Predicted(needs.task, classes, labels, scores, groups))
    return External(measured, absent, unknown, found.broken)


def _matched(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """Return the number that each of their classes has here: of the same name, or of one that differs in case alone.

    Classes without names, which are numbers, are those of the same number if there are as many.
    """
    if len(theirs) == len(ours) and [*theirs] == [str(number) for number in range(len(theirs))]:
        return [*range(len(ours))]
    plain = Counter(map(_plain, ours))
    alike = {_plain(label): number for number, label in enumerate(ours) if plain[_plain(label)] == 1}
    same = {label: number for number, label in enumerate(ours)}
    return [same.get(label, alike.get(_plain(label))) for label in theirs]


def _plain(label: str) -> str:
    return " ".join(label.split()).casefold()
