"""Trained models that are asked together, in this process or another, about files or squares."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from qvit.answers.needs import Needs
from qvit.answers.reading import Block, block
from qvit.answers.spread import File
from qvit.answers.views import answer
from qvit.errors import RunError
from qvit.models.zoo import Model
from qvit.training.described import weights_digest
from qvit.training.folder import Run
from qvit.training.surroundings import surroundings

Key = tuple[tuple[str, str], ...]  # of each model, its folder and the digest of its weights


@dataclass(frozen=True, eq=False)
class Member:
    """A trained model, the digest of its weights, what it needs, and on how many threads it computes."""

    run: Run
    digest: str
    model: Model
    needs: Needs
    threads: int


@dataclass(frozen=True, eq=False)
class Asked:
    """What several models say of images: the mean of their probabilities, and each one's features (m, d)."""

    scores: Float[np.ndarray, "m k"]
    features: tuple[Float[np.ndarray, "m _"], ...]


@dataclass(frozen=True, eq=False)
class AskedBlock:
    """The same of some files in a row; `block` without its squares. None if it has no image."""

    block: Block
    asked: Asked | None


def open_member(run: Run) -> Member:
    """Return the trained model of a run; raises RunError for one that is not finished, or damaged."""
    needs = Needs.of(run)  # first, as its errors say what to do about a run that is none
    return Member(run, weights_digest(run), run.load_model(), needs, run.training.threads)


def ask(members: Sequence[Member], squares: UInt8[np.ndarray, "m c s s"]) -> Asked:
    """Ask all models about squares."""
    scores, features = [], []
    for member in members:
        with surroundings(member.threads):
            found = answer(member.model, squares, member.needs.task, member.needs.symmetries)
        scores.append(found[0])
        features.append(found[1])
    return Asked(np.mean(scores, axis=0), tuple(features))


def ask_files(
    members: Sequence[Member],
    start: int,
    files: Sequence[File],
    *,
    folder: Path = Path(),
) -> AskedBlock:
    """Ask all models about files, the first of which is at position `start`; relative paths are below `folder`."""
    found = block(members[0].needs, start, files, folder=folder)
    asked = ask(members, found.squares) if len(found.squares) else None
    return AskedBlock(found.without_squares(), asked)


def key_of(members: Sequence[Member]) -> Key:
    """Return what another process finds the same models by."""
    return tuple((str(member.run.folder.absolute()), member.digest) for member in members)


def ask_files_of(key: Key, folder: Path, start: int, files: Sequence[File]) -> AskedBlock:
    """Do as `ask_files`, in a process that opens the models when it is first asked, and may be in another folder."""
    return ask_files(_opened(key), start, files, folder=folder)


@lru_cache(maxsize=1)
def _opened(key: Key) -> tuple[Member, ...]:
    members = tuple(open_member(Run(Path(folder))) for folder, _ in key)
    if key_of(members) != key:
        raise RunError("The weights of a run were changed while it was asked. Ask it again.")
    gc.freeze()  # what was imported, which is never collected; see `spread`
    gc.enable()
    return members
