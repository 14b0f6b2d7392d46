"""A run's model card: what another person has to know, as a README in the form of Hugging Face."""

from pathlib import Path
from typing import Any

import yaml

from qvit.answers.calibrated import Answering, Calibration
from qvit.answers.evidence import load
from qvit.answers.needs import Needs
from qvit.data.registry import DATASETS, DatasetInfo, is_path, name_of
from qvit.files import write_atomic
from qvit.models.baselines import BaselineConfig
from qvit.training.folder import Run
from qvit.training.records import Figures

NAME = "README.md"
TITLES = {
    "auc": "AUC",
    "acc": "Accuracy",
    "balanced_acc": "Balanced accuracy",
    "f1": "F1",
    "kappa": "Cohen's kappa",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ece": "Calibration error",
    "log_loss": "Log loss",
}
# What Hugging Face's lists call these measures.
_TYPES = {"auc": "roc_auc", "acc": "accuracy", "balanced_acc": "balanced_accuracy", "f1": "f1"}
_ESCAPED = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]<>|#"})


def write_card(run: Run) -> Path:
    """Write the card of a finished run into its folder, and return its path; raises RunError as reading a run does."""
    path = run.folder / NAME
    write_atomic(path, card(run).encode())
    return path


def card(run: Run, *, place: str = "FOLDER") -> str:
    """Return the card of a finished run: a header in YAML, and text in Markdown.

    It is made of the run's folder alone, and holds no paths; `place` is what its example loads. Raises RunError as
    reading a run does.
    """
    needs = Needs.of(run)
    info = None if is_path(run.config["dataset"]) else DATASETS.get(run.config["dataset"])
    name = name_of(run.dataset)
    header = yaml.safe_dump(_header(run, info, name), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {run.config['model']} on {_text(info.title if info else name)}",
        _what(run, needs, info, name),
        _measured(run, needs),
        _trusted(run, needs),
        _used(run, needs, info),
        _asked(place),
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"


def _header(run: Run, info: DatasetInfo | None, name: str) -> dict[str, Any]:
    test = run.result.test
    metrics = [
        {"type": kind, "name": TITLES[measure], "value": round(value, 4)}
        | ({} if ends is None or None in ends else {"args": {"interval_95": [round(float(end), 4) for end in ends]}})
        for measure, kind in _TYPES.items()
        if (value := getattr(test, measure)) is not None
        for ends in [getattr(test, f"{measure}_interval", None)]
    ]
    task = {"type": "image-classification", "name": run.config["task"]}
    results = {
        "task": task,
        "dataset": {"name": info.title if info else name, "type": name, "split": str(run.fold or "test")},
        "metrics": metrics,
    }
    return {
        "library_name": "qvit",
        "pipeline_tag": "image-classification",
        "license": "other",
        "license_name": "see-below",
        "tags": ["medical-imaging", *(["quantum"] if "qvit" in run.config["model"] else [])],
        "model-index": [{"name": f"{run.config['model']}-{name}", "results": [results]}],
    }


def _what(run: Run, needs: Needs, info: DatasetInfo | None, name: str) -> str:
    config, result = run.config, run.result
    kind = "in colour" if needs.channels == 3 else "grey"
    classes = "labels" if needs.task == "multi-label" else "classes"
    data = f"{info.title} ({info.citation}), {info.licence}" if info else f"{name}, data of the author of this model"
    averaged = "" if needs.symmetries == "none" else f", averaged over the symmetries {needs.symmetries}"
    fold = (
        "" if run.fold is None else f": its training and validation images but those of {run.fold}, drawn by its seed"
    )
    fitted = isinstance(run.architecture, BaselineConfig)
    chosen = "the last one" if run.training.keep == "last" else "by its AUC on the validation images"
    if run.training.average > 1:
        chosen += f", with the mean of the weights after each of the last {run.training.average} epochs"
    lines = [
        f"- **Images**: {needs.size} x {needs.size} pixels, {kind}; others are cut or padded and averaged to that.",
        f"- **Answers**: {needs.task}; {len(needs.classes)} {classes}: {_text('; '.join(needs.classes))}{averaged}.",
        f"- **Size**: {result.parameters:,} parameters.",
        f"- **Trained on**: {_text(data)}{fold}. Digest of the data: `{config['data_digest']}`.",
        f"- **Fitted** at once; seed {config['seed']}."
        if fitted
        else f"- **Chosen**: epoch {result.best_epoch}, {chosen}; seed {config['seed']}.",
    ]
    return "\n".join(lines)


def _measured(run: Run, needs: Needs) -> str:
    fold, figures = run.fold, {"validation": run.result.val, "test": run.result.test}
    where = "test images" if fold is None else "images held out"
    if fold is not None:  # which is both
        figures = {f"held out: {fold}": run.result.test}
    rows = [f"| | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    rows += [
        f"| {title} | {' | '.join(_value(each, name) for each in figures.values())} |" for name, title in TITLES.items()
    ]
    text = "## Measured\n\n" + "\n".join(rows) + "\n\nIn brackets: 95 %, bootstrap over images; none if they are few."
    by_class = run.result.test
    found, rates = by_class.sensitivity_by_class, by_class.specificity_by_class
    if found is None or rates is None:
        return text
    lines = ["| class | sensitivity | specificity |", "|---|---|---|"]
    for name, one, other in zip(needs.classes[-len(found) :], found, rates, strict=True):
        lines.append(f"| {_text(name)} | {_three(one)} | {_three(other)} |")
    return f"{text}\n\nOn the {where}, each class against the rest:\n\n" + "\n".join(lines)


def _value(figures: Figures, measure: str) -> str:
    ends = getattr(figures, f"{measure}_interval", None)
    between = "" if ends is None or None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return f"{_three(getattr(figures, measure))}{between}"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _trusted(run: Run, needs: Needs) -> str:
    kept = load(run)
    title = "## How sure its answers are\n\n"
    if kept is None:
        return f"{title}Not calibrated: the folder keeps no predictions of validation images (`qvit calibrate`)."
    learnt = Calibration.learn([kept], needs, Answering())
    lines = []
    if learnt.ece is not None:
        before, after = learnt.ece
        lines.append(
            f"- Probabilities are scaled by the temperature {learnt.temperature:.2f}: calibration error on validation "
            f"{before:.3f} before, {after:.3f} after."
        )
    if kept.operating is not None:
        measure, value = kept.operating
        lines.append(f"- Yes or no is decided such that the {measure} on validation is at least {value:g}.")
    lines += [f"- {_text(note)}" for note in learnt.notes]
    return title + "\n".join(lines or ["- Nothing is missing."])


def _used(run: Run, needs: Needs, info: DatasetInfo | None) -> str:
    licence = (
        f"The data's licence, {info.licence}, may bind what is made of them."
        if info
        else "The licence of the data, and so of this model, is for its author to say."
    )
    synthetic = " These images are synthetic: the model knows nothing of real ones." if info and info.synthetic else ""
    return (
        "## Use and limits\n\n"
        "For research. **Not a medical device**: it was not made or tested for decisions about patients. It knows the "
        f"classes above and no others, and images like those it was trained on;{synthetic or ''} other devices, stains "
        "and hospitals may change its errors in any way. Test it on your own images first "
        f"(`qvit evaluate RUN --data FOLDER`). {licence}"
    )


def _asked(place: str) -> str:
    return (
        "## Ask it\n\n"
        f'```python\nimport qvit\n\nmodel = qvit.load("{place}")  # of this card\n'
        'for found in model.predict("picture.png"):\n    print(found.label, found.confidence, found.possible)\n```'
    )


def _text(value: str) -> str:
    """Return a name from outside as Markdown shows it, on one line."""
    return " ".join(value.split()).translate(_ESCAPED)
