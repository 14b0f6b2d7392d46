"""Check shapes and types of annotations while the tests run, and keep torch to one core."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ("pytester", "suite.marks", "suite.kernels", "suite.raised")

gc.disable()  # what is imported and collected is no garbage, and to look for some takes seconds

# With -n, this process only hands out tests: what they need would be imported in vain.
hands_out = "PYTEST_XDIST_WORKER" not in os.environ and any(one.startswith("-n") for one in sys.argv)

if not hands_out:
    import torch
    from jaxtyping import install_import_hook

    # Matrices are tiny here: a second thread only waits, and with several test processes it costs minutes.
    torch.set_num_threads(1)

    # Before any import of qvit: where shapes are stated, which mypy cannot see. An int may stand for a float, as for
    # mypy. Typer reads the command line's annotations itself; circuits as values are hundreds of thousands of small
    # calls with no shape to check.
    source = Path(__file__).parents[1] / "src"
    stated = [path for path in source.rglob("*.py") if "from jaxtyping import" in path.read_text()]
    install_import_hook(
        [".".join(path.relative_to(source).with_suffix("").parts) for path in stated],
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )


@pytest.fixture(scope="session", autouse=True)
def notes_of_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs note where their data lie, which must not be in the cache of whoever runs the tests."""
    from qvit.training import places

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(places, "user_cache", lambda: folder)
        yield


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
