"""Datasets: their registry, their files, checked arrays, and augmentation of batches."""

from typing import TYPE_CHECKING

from qvit.lazy import names_of

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
__getattr__ = names_of(__name__, _HOMES)  # `--help` reads the registry, so this must not import torch
