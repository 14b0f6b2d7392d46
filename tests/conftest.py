"""Check shapes and types of annotations while the tests run, and keep torch to one core."""

import os
import sys

pytest_plugins = ("pytester", "suite.marks", "suite.kernels", "suite.raised")

# With -n, this process only hands out tests: what they need would be imported in vain.
hands_out = "PYTEST_XDIST_WORKER" not in os.environ and any(one.startswith("-n") for one in sys.argv)

if not hands_out:
    import torch
    from jaxtyping import install_import_hook

    # Matrices are tiny here: a second thread only waits, and with several test processes it costs minutes.
    torch.set_num_threads(1)

    # Before any import of qvit. An int may stand for a float, as for mypy. The command line is left out: typer reads
    # its annotations itself; so are circuits as values, hundreds of thousands of small calls with no shape to check.
    checked = ("quantum.engines", "quantum.layer", "data", "models", "evaluation", "training", "study", "distill")
    install_import_hook(
        [f"qvit.{floor}" for floor in checked],
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )
