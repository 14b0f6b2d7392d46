"""What the package imports when it is installed alone is what it says that it needs."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(path: Path) -> set[str]:
    """The packages that a module imports as it is loaded: not inside functions, nor for types alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not only_types:
            waiting += ast.iter_child_nodes(node)
    return found


def test_every_package_that_is_imported_is_declared() -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {re.split(r"[<>=!~ \[]", line)[0].lower() for line in said}
    own = {"qvit", "typing_extensions", "llvmlite"}  # pydantic and numba need the latter two
    names = (
        {name for path in (ROOT / "src").rglob("*.py") for name in imported(path)} - set(sys.stdlib_module_names) - own
    )
    homes = packages_distributions()
    assert {"torch", "numpy", "sklearn", "PIL"} <= names
    missing = {name for name in names if not {home.lower() for home in homes[name]} & declared}
    assert missing == {"anyio", "pydicom", "starlette", "uvicorn"}, "imported only where an extra is installed"
