"""qvit: train, compare and understand quantum vision transformers on biomedical images."""

from typing import TYPE_CHECKING

from qvit.lazy import names_of

if TYPE_CHECKING:
    from qvit.answers.predictor import load
    from qvit.data.arrays import load_dataset
    from qvit.evaluation.metrics import evaluate
    from qvit.models.zoo import create_model, list_models
    from qvit.quantum.layer import QuantumLinear
    from qvit.report.page import write_report
    from qvit.study.runner import run_study
    from qvit.training.loop import fit
    from qvit.training.prediction import predict
    from qvit.training.run import train_run

__version__ = "0.1.0"
__all__ = [
    "QuantumLinear",
    "create_model",
    "evaluate",
    "fit",
    "list_models",
    "load",
    "load_dataset",
    "predict",
    "run_study",
    "train_run",
    "write_report",
]

_HOMES = {
    "QuantumLinear": "quantum.layer",
    "create_model": "models.zoo",
    "evaluate": "evaluation.metrics",
    "fit": "training.loop",
    "list_models": "models.zoo",
    "load": "answers.predictor",
    "load_dataset": "data.arrays",
    "predict": "training.prediction",
    "run_study": "study.runner",
    "train_run": "training.run",
    "write_report": "report.page",
}
__getattr__ = names_of(__name__, _HOMES)  # `import qvit` must not bring torch with it


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
