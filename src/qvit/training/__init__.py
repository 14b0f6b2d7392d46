"""Training: one loop, and runs as folders that can be resumed bit for bit."""

from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.evaluated import evaluate_run
from qvit.training.folder import Run
from qvit.training.loop import fit
from qvit.training.options import RunConfig, resolve
from qvit.training.prediction import predict
from qvit.training.run import build_model, train_run
from qvit.training.state import TrainState

__all__ = [
    "Batch",
    "Run",
    "RunConfig",
    "TrainConfig",
    "TrainState",
    "build_model",
    "evaluate_run",
    "fit",
    "predict",
    "resolve",
    "train_run",
]
