"""What a run's folder keeps of its validation images, so that answers can be calibrated without the data.

Two files: `validation.safetensors` holds what the model said of the validation images, what was right, and what their
features are like; `calibration.json`, written last, says of which weights and data that is. Neither holds an image.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from pydantic import Field, with_config
from typing_extensions import TypedDict

from qvit.answers.needs import Needs
from qvit.answers.views import answer
from qvit.data.arrays import Dataset, Split
from qvit.documents import one_line, read_json
from qvit.errors import FileError, QvitError, RunError
from qvit.evaluation import novelty
from qvit.files import open_regular, remedy, write_atomic
from qvit.models.zoo import Model
from qvit.training.described import weights_digest
from qvit.training.folder import Run
from qvit.training.stored import STRICT, Count, Name, checked
from qvit.training.surroundings import surroundings

VERSION = 1
Measure = Literal["sensitivity", "specificity"]
RECORD, ARRAYS = "calibration.json", "validation.safetensors"
MOST_TRAINING = 20_000  # images that usual features are learnt from
_LARGEST_RECORD, _LARGEST_ARRAYS = 1 << 20, 1 << 30  # bytes
_PART = 4096  # images in memory at a time


@with_config(STRICT)
class OperatingFile(TypedDict):
    """What calibration.json says of an operating point."""

    measure: Measure
    value: Annotated[float, Field(gt=0, le=1)]


@with_config(STRICT)
class RecordFile(TypedDict):
    """The content of calibration.json: the version of the format, digests of weights and data, what was chosen."""

    version: Count
    weights: Name
    data_digest: Name
    images: Count
    operating: OperatingFile | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a model says of its n validation images: `scores` (n, c), the true `labels` (n, k), and how far the features
    of each lie from what is `usual` among training images, `distances` (n,). `operating` is the measure that decisions
    are to reach on them, sensitivity or specificity, and its value, if one was chosen.
    """

    scores: Float[np.ndarray, "n c"]
    labels: Int64[np.ndarray, "n k"]
    distances: Float[np.ndarray, " n"]
    usual: novelty.Familiar
    operating: tuple[Measure, float] | None = None


def evidence_of(run: Run, *, root: str | Path | None = None, file: str | Path | None = None) -> Evidence | None:
    """Return what the run's folder keeps, or gather and keep it; None if it lacks it and the data cannot be read.

    Nothing is downloaded: whoever asks about one image does not wait for a dataset.

    A folder that nothing can be written to is left as it is. Raises RunError for damaged files.
    """
    kept = load(run)
    if kept is not None:
        return kept
    try:
        found = gathered(run, root=root, file=file, download=False)
    except QvitError:  # of data that are not there, or others: answers are given without calibration
        return None
    with suppress(RunError):  # it is gathered again next time
        save(run, found)
    return found


def gathered(
    run: Run, *, root: str | Path | None = None, file: str | Path | None = None, download: bool = True
) -> Evidence:
    """Gather evidence from a run's data; raises what `Run.load_data` raises."""
    with surroundings(run.training.threads):
        return gather(run.load_model(), run.load_data(root, file=file, download=download), Needs.of(run))


def gather(model: Model, data: Dataset, needs: Needs) -> Evidence:
    """Predict the validation images, and learn what features of training images are like."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.train))[:MOST_TRAINING])
    trained = np.concatenate([features for _, features in _answers(model, data.train, chosen, needs, "none")])
    learnt = novelty.familiar(trained)
    # As the file keeps them, so that both give the same distances.
    usual = novelty.Familiar(_rounded(learnt.mean), _rounded(learnt.precision))
    parts = [*_answers(model, data.val, np.arange(len(data.val)), needs, needs.symmetries)]
    scores, features = map(np.concatenate, zip(*parts, strict=True))
    return Evidence(scores, data.val.labels, novelty.distances(usual, features), usual)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


def _answers(
    model: Model, split: Split, chosen: NDArray[np.int64], needs: Needs, group: str
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    for start in range(0, len(chosen), _PART):
        images = split.batch(chosen[start : start + _PART])[0].numpy()
        yield answer(model, images, needs.task, group)


def save(run: Run, evidence: Evidence) -> None:
    """Keep what was gathered in the run's folder; raises RunError if it cannot be written to."""
    usual = evidence.usual
    arrays = {
        "scores": evidence.scores,
        "labels": evidence.labels,
        "distances": evidence.distances,
        "mean": usual.mean.astype(np.float32),
        "precision": usual.precision.astype(np.float32),
    }
    record: RecordFile = {
        "version": VERSION,
        "weights": weights_digest(run),
        "data_digest": run.config["data_digest"],
        "images": len(evidence.labels),
        "operating": None if evidence.operating is None else _operating(*evidence.operating),
    }
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomic(run.folder / ARRAYS, safetensors.numpy.save(whole))
    write_atomic(run.folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _operating(measure: Measure, value: float) -> OperatingFile:
    return {"measure": measure, "value": value}


def load(run: Run) -> Evidence | None:
    """Return what the folder keeps; None if it keeps nothing, or that of other weights or of another version.

    Raises RunError for damaged files.
    """
    path = run.folder / RECORD
    try:
        record = checked(read_json(path, most=_LARGEST_RECORD), RecordFile, "it")
    except FileError as error:
        if error.missing:
            return None
        raise _damaged(path, error) from error
    if record["version"] != VERSION:
        return None
    if (record["weights"], record["data_digest"]) != (weights_digest(run), run.config["data_digest"]):
        return None
    path = run.folder / ARRAYS
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST_ARRAYS)
        found = _evidence(safetensors.numpy.load(content), Needs.of(run), record["images"])
    except RunError:
        raise
    except Exception as error:  # the library has several of its own
        if isinstance(error, FileError) and error.missing:
            return None
        raise _damaged(path, error) from error
    chosen = record["operating"]
    return found if chosen is None else replace(found, operating=(chosen["measure"], chosen["value"]))


def _evidence(arrays: dict[str, NDArray[np.generic]], needs: Needs, images: int) -> Evidence:
    """Return what the arrays hold; raises any error if that is not what was written."""
    scores, labels, distances, mean, precision = (
        arrays[name] for name in ("scores", "labels", "distances", "mean", "precision")
    )
    classes, width = len(needs.classes), len(mean)
    shapes = (images, classes), (images, classes if needs.task == "multi-label" else 1), (images,)
    if (scores.shape, labels.shape, distances.shape) != shapes or precision.shape != (width, width):
        raise ValueError("arrays of other shapes")
    top = 1 if needs.task == "multi-label" else classes - 1
    if labels.dtype != np.int64 or labels.min() < 0 or labels.max() > top:
        raise ValueError("labels that are none")
    numbers = [array.astype(np.float64) for array in (scores, distances, mean, precision)]
    if not all(np.isfinite(array).all() for array in numbers) or numbers[0].min() < 0 or numbers[0].max() > 1 + 1e-6:
        raise ValueError("numbers that are no probabilities or distances")
    return Evidence(numbers[0], labels.astype(np.int64), numbers[1], novelty.Familiar(numbers[2], numbers[3]))


def _damaged(path: Path, error: Exception) -> RunError:
    advice = remedy(error, "delete it: it is made again from the data, without the operating point that was chosen")
    return RunError(f"{path} is damaged ({one_line(error) or type(error).__name__}); {advice}.")
