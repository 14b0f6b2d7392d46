"""A hash of the package's code that can change the results of a run.

It covers the syntax of the modules that a run executes, found from the imports of `study.work`. Comments, docstrings,
layout and the text of errors do not count, nor do modules that only watch, show or choose runs.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import qvit
from qvit.training.environment import COMPUTED_BY

ENTRY = "qvit.study.work"
KERNELS = 1  # increase it if compiled kernels give other numbers for a reason that no source shows, as compiler options
STATEMENTS = (ast.stmt, ast.ExceptHandler, ast.match_case)  # nodes that are, or may contain, imports
SILENT = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}  # fields that some versions of Python lack


@cache
def code_digest() -> str:
    """Return the SHA-256 of all code that can change a run's results, and of the versions of the packages it calls."""
    sources = Sources(Path(qvit.__file__).parent)
    counted = {name: version(name) for name in COMPUTED_BY} | {"kernels": str(KERNELS)}
    digest = hashlib.sha256(json.dumps(counted).encode())
    for name in sources.reached(ENTRY):
        tree = sources.tree(name)
        text = _meaning(tree, is_package=sources.is_package(name))
        digest.update(f"{name} {hashlib.sha256(text.encode()).hexdigest()}\n".encode())
    return digest.hexdigest()


class Sources:
    """The modules of a package, by their dotted names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trees: dict[str, ast.Module] = {}

    def _path(self, name: str) -> Path | None:
        """Return the path of a module's source; None if there is no such module in the package."""
        first, *rest = name.split(".")
        if first != self._root.name:
            return None
        place = self._root.joinpath(*rest)
        candidates = (place / "__init__.py", *([place.with_suffix(".py")] if rest else []))
        return next((path for path in candidates if path.is_file()), None)

    def is_package(self, name: str) -> bool:
        """Return whether a module is a package (an `__init__.py`)."""
        path = self._path(name)
        return path is not None and path.name == "__init__.py"

    def tree(self, name: str) -> ast.Module:
        """Return a module's syntax tree."""
        if name not in self._trees:
            path = self._path(name)
            assert path is not None, name
            self._trees[name] = ast.parse(path.read_bytes())
        return self._trees[name]

    def reached(self, entry: str) -> list[str]:
        """Return the sorted names of all modules that a module imports, directly or not, also inside functions.

        A name that a package only re-exports is followed to its source, so that the package's other exports do not
        count. The `__init__.py` of packages around modules counts, without its imports; that of the outermost package,
        which holds only version and names, does not.
        """
        found: set[str] = set()
        waiting = [entry]
        while waiting:
            name = waiting.pop()
            if name in found or name == self._root.name:
                continue
            found.add(name)
            waiting += (parent for parent in [name.rpartition(".")[0]] if parent)
            tree = self.tree(name)
            if self.is_package(name):
                tree = _without_imports(tree)
            waiting += (one for module, given in _imports(tree) for one in self._homes(module, given))
        return sorted(found)

    def _homes(self, module: str, name: str | None) -> Iterator[str]:
        """Yield the module that `from module import name`, or `import module`, refers to; none for other packages."""
        if self._path(module) is None:
            return
        if name is not None and self._path(f"{module}.{name}"):
            yield f"{module}.{name}"
            return
        if name is not None and self.is_package(module):
            for source, given in _imports(self.tree(module), typing=True):
                if given == name and source != module:
                    yield from self._homes(source, given)
                    return
        yield module


def _imports(tree: ast.AST, *, typing: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield the modules that a tree imports, with the names imported from each; with `typing`, also for types only."""
    for node in filter(lambda child: isinstance(child, STATEMENTS), ast.iter_child_nodes(tree)):
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING"), orelse=other) if not typing:
                for one in other:
                    yield from _imports(ast.Module([one], []), typing=typing)
            case ast.Import(names=names):
                yield from ((alias.name, None) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from ((module, alias.name) for alias in names)
            case _:
                yield from _imports(node, typing=typing)


def _without_imports(tree: ast.Module) -> ast.Module:
    return ast.Module([node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)], [])


def _meaning(tree: ast.Module, *, is_package: bool) -> str:
    """Return a tree as text that is equal for sources with the same syntax, as far as it counts."""
    return _said(_without_imports(tree) if is_package else tree)


def _said(node: object) -> str:
    match node:
        case ast.Assign(targets=[ast.Name("__all__")]):
            return ""
        case ast.If(test=ast.Name("TYPE_CHECKING"), orelse=[]):
            return ""
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring, or a string that does nothing
            return ""
        case ast.Raise(exc=ast.Call(func=kind)):
            return f"Raise({_said(kind)})"
        case ast.AST():
            fields = ((name, value) for name, value in ast.iter_fields(node) if name not in SILENT)
            told = (f"{name}={_said(value)}" for name, value in fields if value is not None and value != [])
            return f"{type(node).__name__}({','.join(told)})"
        case list():
            return f"[{','.join(filter(None, map(_said, node)))}]"
    return repr(node)
