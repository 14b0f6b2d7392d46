"""Datasets: what is known of them, their files, checked arrays, augmentation of batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvit.data.arrays import Dataset, Split, load_dataset
    from qvit.data.registry import DATASETS, DatasetInfo, get_info

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "Split", "get_info", "load_dataset"]

_HOMES = {
    "Dataset": "arrays",
    "Split": "arrays",
    "load_dataset": "arrays",
    "DATASETS": "registry",
    "DatasetInfo": "registry",
    "get_info": "registry",
}


def __getattr__(name: str) -> Any:
    # Looked up when asked for: the registry serves `--help` and must not bring torch with it.
    if name in _HOMES:
        return getattr(import_module(f"qvit.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'qvit.data' has no attribute '{name}'")
