"""The best recipe for a dataset: many are tried on folds of its training and validation images, and one is chosen.

menu (YAML) → candidates → rungs of folds, trained as stacks by workers → trials.jsonl → verdict
                                                   winner → one training → one reading of the test images
"""

from qvit.lazy import names_of

__getattr__ = names_of(
    "qvit.tune", {"tune": "tuner", "Asked": "tuner", "Tuned": "tuned", "Menu": "menu", "read_menu": "menu"}
)
