"""Plain baselines are fitted to training images by scikit-learn, at once; what was learnt becomes arrays.

Images are seen under the symmetries that a network would be trained with. What there is to choose, a penalty or how
many neighbours to ask, is chosen within the training images: validation images decide over symmetries alone, as ever.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import group_size, random_elements
from qvit.data.views import Views
from qvit.errors import ConfigError
from qvit.evaluation.metrics import log_loss
from qvit.models.baselines import Baseline
from qvit.models.rules import DEEPEST, squares
from qvit.training.batches import augmentation_group
from qvit.training.config import TrainConfig
from qvit.training.distributed import Team
from qvit.training.objective import Guide
from qvit.training.prediction import BATCH, evaluating, predict
from qvit.training.records import Best, EpochRecord
from qvit.training.seeding import ORDER, derive, generator
from qvit.training.state import TrainState
from qvit.training.surroundings import surroundings
from qvit.training.validation import validation_figures

MOST_ROWS = 20_000  # of images under all symmetries; of more images each is seen under one
MOST_TO_CHOOSE = 5000  # images by which something is chosen
FOLDS = 5
PENALTIES = tuple(10.0 ** (-k / 2) for k in range(6))  # 1 to 0.003
NEIGHBOURS = (1, 3, 5, 9, 15, 25, 45)
LEAVES = 4000  # about how many a tree has at most
SMALLEST = 2  # rows in a leaf, at least
UNSEEN = -20.0  # the logit of a class that no training image has


def check_alone(name: str, guide: Guide | None, origin: object, team: Team) -> None:
    """Raise `ConfigError` for what a baseline cannot do: learn from another model, or in several processes."""
    if guide is not None or origin is not None:
        raise ConfigError(f"{name} is fitted to labels alone: leave out the guide and the run to start from.")
    if team.count > 1:
        raise ConfigError(f"{name} is fitted by one process, found {team.count}. Start one process.")


@dataclass(frozen=True, eq=False)
class Examples:
    """What a baseline learns from: the features of n images as they are, and of r `rows` under symmetries.

    `labels` are (n, 1), of `several` labels 0/1 (n, k); `image` (r,) is the image that each row is of.
    """

    features: Float[np.ndarray, "n f"]
    labels: Int64[np.ndarray, "n l"]
    rows: Float[np.ndarray, "r f"]
    image: Int64[np.ndarray, " r"]
    classes: int
    several: bool
    seed: int
    threads: int

    def some(self) -> NDArray[np.int64]:
        """Return the places of the images by which something is chosen."""
        order = np.random.default_rng(derive(self.seed, ORDER)).permutation(len(self.features))
        return np.sort(order[:MOST_TO_CHOOSE])

    def scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and deviation of each feature; 1 for one that does not vary."""
        values = self.rows.astype(np.float64)
        mean, spread = values.mean(axis=0), values.std(axis=0)
        return mean, np.where(spread > 1e-6, spread, 1.0)

    def frequencies(self) -> NDArray[np.float64]:
        """Return the share of each class, or label, as if there were one image more of each, and of none."""
        count = len(self.labels)
        if self.several:
            return np.asarray((self.labels.sum(axis=0) + 1) / (count + 2))
        return (np.bincount(self.labels[:, 0], minlength=self.classes) + 1) / (count + self.classes)


def fit_baseline(model: Baseline, data: Dataset, config: TrainConfig, *, seed: int) -> TrainState:
    """Fit a baseline to `data.train`; return the state of a run of one epoch.

    Validation images decide over which symmetries predictions are averaged, if `config.tta` is "auto". The test split
    is not touched.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn, which needs it, brings it

    start, task = time.perf_counter(), data.info.task
    # Matrices this small take ten times as long if threads wait for each other.
    with surroundings(config.threads), threadpool_limits(config.threads):
        model.to(config.device)
        examples = _examples(model, data, config, seed)
        with warnings.catch_warnings():
            # Folds without a class, and regressions that have not quite converged, are as good as any.
            warnings.simplefilter("ignore")
            arrays = FITTERS[model.config.arch](model.config, examples)
        model.head.fitted({name: torch.as_tensor(array) for name, array in arrays.items()})
        images, labels = data.train.batch(examples.some())
        seen = Split(images.numpy(), labels.numpy())
        loss = log_loss(seen.labels, predict(model, seen, task, device=config.device), task)
        record = EpochRecord(1, 0.0, loss, **vars(validation_figures(model, data, config)))
    seconds = time.perf_counter() - start
    return TrainState(epoch=1, best=Best(record, {}), history=[record], seconds=[seconds])


@torch.no_grad()
def _examples(model: Baseline, data: Dataset, config: TrainConfig, seed: int) -> Examples:
    group = augmentation_group(data, config)
    elements, count = group_size(group), len(data.train)
    views, everyone = Views(data.train, group, most=0), torch.arange(count)

    def features(seen: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        parts = [model.forward_features(seen(index)).cpu() for index in everyone.split(max(1, BATCH // elements))]
        return torch.cat(parts).numpy()

    with evaluating(model):
        plain = Views(data.train, "none")
        alone = features(lambda index: plain.batch(index, torch.zeros_like(index), config.device)[0])
        if elements == 1:
            rows, image = alone, everyone
        elif count * elements <= MOST_ROWS:
            rows = features(lambda index: views.under_all(index, config.device))
            parts = everyone.split(max(1, BATCH // elements))
            image = torch.cat([index.repeat(elements) for index in parts])
        else:
            drawn = random_elements(count, group, generator(seed, ORDER))
            rows, image = features(lambda index: views.batch(index, drawn[index], config.device)[0]), everyone
    several = data.info.task == "multi-label"
    told = alone, data.train.labels.astype(np.int64), rows, image.numpy(), model.num_classes, several
    return Examples(*told, seed, config.threads)


def _commonest(config: Any, examples: Examples) -> dict[str, NDArray[Any]]:
    shares = examples.frequencies()
    return {"logits": np.log(shares / (1 - shares)) if examples.several else np.log(shares)}


def _logistic(config: Any, examples: Examples) -> dict[str, NDArray[Any]]:
    mean, spread = examples.scale()
    penalty = config.penalty
    if penalty is None:
        some = examples.some()
        penalty = choose_penalty((examples.features[some] - mean) / spread, examples.labels[some], examples)
    rows = (examples.rows - mean) / spread
    weight, bias = regression(rows, examples.labels[examples.image], penalty, examples)
    weight = weight / spread  # so that features need no scale
    return {"weight": weight, "bias": bias - weight @ mean}


def choose_penalty(features: Float[np.ndarray, "n f"], labels: Int64[np.ndarray, "n l"], examples: Examples) -> float:
    """Return the penalty by which a regression says most of images that it has not seen: those of each fold in turn."""
    count = len(features)
    if count < 2 * FOLDS:
        return PENALTIES[0]
    fold = np.random.default_rng(derive(examples.seed, ORDER)).permutation(count) % FOLDS
    if not examples.several:  # classes are shared out evenly
        fold[np.argsort(labels[:, 0], kind="stable")] = np.arange(count) % FOLDS
    losses = np.zeros(len(PENALTIES))
    for place, penalty in enumerate(PENALTIES):
        for one in range(FOLDS):
            held = fold == one
            weight, bias = regression(features[~held], labels[~held], penalty, examples)
            losses[place] += _loss(features[held] @ weight.T + bias, labels[held], examples.several)
    return PENALTIES[int(losses.argmin())]


def _loss(logits: Float[np.ndarray, "n k"], labels: Int64[np.ndarray, "n l"], several: bool) -> float:
    """Return the sum of the log loss of images."""
    if several:
        return float(np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean(axis=1).sum())
    return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels[:, 0]]).sum())


def regression(
    features: Float[np.ndarray, "n f"], labels: Int64[np.ndarray, "n l"], penalty: float, examples: Examples
) -> tuple[Float[np.ndarray, "k f"], Float[np.ndarray, " k"]]:
    """Return weights and biases of logits: of each class, or of each of several labels.

    Classes that no image has get a low logit; a label that all images have, or none, gets a constant one.
    """
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((examples.classes, features.shape[1])), np.zeros(examples.classes)
    fitted = LogisticRegression(C=1.0 / (penalty * len(features)), max_iter=300)
    if examples.several:
        for label, column in enumerate(labels.T):
            if column.min() == column.max():
                bias[label] = UNSEEN * (1 - 2 * column[0])
                continue
            fitted.fit(features, column)
            weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
        return weight, bias
    present = np.unique(labels)
    bias[np.setdiff1d(np.arange(examples.classes), present)] = UNSEEN
    if len(present) > 1:
        fitted.fit(features, labels[:, 0])
        half = [-0.5, 0.5]  # the one logit of two classes is the difference of two
        both = len(present) == 2
        weight[present] = np.outer(half, fitted.coef_[0]) if both else fitted.coef_
        bias[present] = np.multiply(half, fitted.intercept_[0]) if both else fitted.intercept_
    return weight, bias


def _extra_trees(config: Any, examples: Examples) -> dict[str, NDArray[Any]]:
    from sklearn.ensemble import ExtraTreesClassifier

    labels = examples.labels[examples.image]
    forest = ExtraTreesClassifier(
        config.trees,
        min_samples_leaf=max(SMALLEST, len(labels) // LEAVES),
        max_depth=DEEPEST,
        random_state=derive(examples.seed, ORDER) % 2**32,
        n_jobs=examples.threads,
    )
    forest.fit(examples.rows, labels if labels.shape[1] > 1 else labels[:, 0])
    return flattened(forest, examples.classes, examples.several)


def flattened(forest: Any, classes: int, several: bool) -> dict[str, NDArray[Any]]:
    """Return the arrays of `models.rules.Trees` that say what a forest of scikit-learn's says."""
    roots: list[int] = []
    parts: dict[str, list[NDArray[Any]]] = {"feature": [], "threshold": [], "other": [], "leaves": []}
    known = forest.classes_ if isinstance(forest.classes_, list) else [forest.classes_]
    nodes = leaves = 0
    for tree in (one.tree_ for one in forest.estimators_):
        place, leaf = np.arange(tree.node_count), tree.children_left < 0
        assert (tree.children_left[~leaf] == place[~leaf] + 1).all(), "scikit-learn grows trees depth first"
        roots.append(nodes)
        number = leaves + np.cumsum(leaf) - 1
        parts["feature"].append(np.where(leaf, -1, tree.feature))
        parts["threshold"].append(_rounded_down(np.where(leaf, 0.0, tree.threshold)))
        parts["other"].append(np.where(leaf, number, tree.children_right + nodes))
        parts["leaves"].append(_shares(tree.value[leaf], known, classes, several))
        nodes, leaves = nodes + tree.node_count, leaves + int(leaf.sum())
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return joined | {"roots": np.array(roots), "several": np.array(several)}


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return thresholds in float32 that the same numbers of that type do not exceed."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _shares(value: NDArray[Any], known: list[NDArray[Any]], classes: int, several: bool) -> NDArray[np.float64]:
    """Return the probability of each class, or label, in each leaf, from what scikit-learn keeps `(leaves, o, c)`."""
    shares = np.zeros((len(value), classes))
    for output, own in enumerate(known):
        told = value[:, output, : len(own)]
        told = told / told.sum(axis=1, keepdims=True)
        if several:
            shares[:, output] = told @ own
        else:
            shares[:, own] = told
    return shares


def _nearest(config: Any, examples: Examples) -> dict[str, NDArray[Any]]:
    mean, spread = examples.scale()
    reference = ((examples.features - mean) / spread).astype(np.float32)
    some, count = examples.some(), config.neighbours
    if count is None:
        count = choose_neighbours(torch.from_numpy(reference[some]), torch.from_numpy(examples.labels[some]), examples)
    told = {"reference": reference, "labels": examples.labels, "center": mean, "spread": spread}
    return told | {"count": np.array(min(count, len(reference)))}


def choose_neighbours(reference: Float[Tensor, "n f"], labels: Int64[Tensor, "n l"], examples: Examples) -> int:
    """Return how many neighbours say most of an image, each image asking the others."""
    images, least = len(reference), NEIGHBOURS[0]
    choices = [count for count in NEIGHBOURS if count < images]
    told = labels.double() if examples.several else torch.eye(examples.classes, dtype=torch.float64)[labels[:, 0]]
    usual, losses = told.mean(dim=0), torch.zeros(len(choices), dtype=torch.float64)
    for part in torch.arange(images).split(BATCH):
        apart = squares(reference[part], reference)
        apart[torch.arange(len(part)), part] = torch.inf  # not itself
        near = told[apart.topk(choices[-1], largest=False).indices] if choices else told[None, :0]
        for place, count in enumerate(choices):
            shares = (near[:, :count].sum(dim=1) + usual) / (count + 1)
            right = shares[told[part] == 1].clamp_min(1e-6).log().sum()
            wrong = (1 - shares[told[part] == 0]).clamp_min(1e-6).log().sum() if examples.several else 0.0
            losses[place] -= right + wrong
    return choices[int(losses.argmin())] if choices else least


FITTERS: dict[str, Callable[[Any, Examples], dict[str, NDArray[Any]]]] = {
    "logistic": _logistic,
    "extra_trees": _extra_trees,
    "nearest": _nearest,
    "commonest": _commonest,
}
