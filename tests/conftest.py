"""Check shapes and types of annotations while the tests run, and keep torch to one core."""

import torch
from jaxtyping import install_import_hook

pytest_plugins = ("pytester", "suite.marks", "suite.kernels", "suite.raised")

# Matrices are tiny here: a second thread only waits, and with several test processes it costs minutes.
torch.set_num_threads(1)

# Before any import of qvit. An int may stand for a float, as for mypy. The command line is left out: typer reads its
# annotations itself; so are circuits as values, hundreds of thousands of small calls with no shape to check.
CHECKED = ("quantum.engines", "quantum.layer", "data", "models", "evaluation", "training", "study", "distill")
install_import_hook(
    [f"qvit.{floor}" for floor in CHECKED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
