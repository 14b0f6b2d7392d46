"""Where a module can be changed, and into what: mutmut's operators, and some for what this project is strict about.

Those of ours change what an error says, turn a condition round, and leave out a step or an error. What cannot be a
defect is left alone: docstrings, annotations, imports, decorators, `__all__`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators


@dataclass(frozen=True)
class Mutant:
    """One change of one file: `before` at a line (from 1) and column (from 0) becomes `after`."""

    path: str
    line: int
    column: int
    before: str
    after: str
    first: int  # line of the statement it is in
    called: bool  # whether that is in a function, not run by the import alone
    source: str  # of the whole module, changed

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}  {_short(self.before)}  →  {_short(self.after)}"

    @property
    def name(self) -> str:
        """Which mutant it is, for as long as the file is as it is."""
        return f"{self.path}:{self.line}:{self.column} {self.before} → {self.after}"


def _short(code: str, most: int = 70) -> str:
    line = " ".join(code.split())
    return line if len(line) <= most else line[: most - 1] + "…"


# --- our own operators ---


def _said(node: cst.FormattedStringText) -> Iterator[cst.CSTNode]:
    if node.value.strip():
        yield node.with_changes(value=f"XX{node.value}XX")


def _turned(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=test))


def _nothing_returned(node: cst.Return) -> Iterator[cst.CSTNode]:
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


def _left_out(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    if m.matches(node, m.SimpleStatementLine(body=[m.Raise() | m.Expr(value=m.Call())])):
        yield node.with_changes(body=[cst.Pass()])


OPERATORS: list[tuple[type, Any]] = [
    *mutation_operators,
    (cst.FormattedStringText, _said),
    (cst.If, _turned),
    (cst.While, _turned),
    (cst.Return, _nothing_returned),
    (cst.SimpleStatementLine, _left_out),
]


# --- every place of a module ---


_STATEMENTS = (cst.SimpleStatementLine, cst.BaseSmallStatement, cst.BaseCompoundStatement)


@dataclass(frozen=True)
class _Place:
    node: cst.CSTNode
    changes: list[cst.CSTNode]
    first: int
    called: bool


class _Places(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[_Place] = []
        self._statements: list[cst.CSTNode] = []
        self._bodies = 0  # of functions, around this node

    def visit_FunctionDef_body(self, node: cst.FunctionDef) -> None:  # noqa: N802 - libcst looks for this name
        self._bodies += 1

    def leave_FunctionDef_body(self, node: cst.FunctionDef) -> None:  # noqa: N802
        self._bodies -= 1

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, _STATEMENTS):
            self._statements.pop()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _STATEMENTS):
            self._statements.append(node)
        return self._look(node)

    def _look(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom | cst.Decorator):
            return False
        if m.matches(node, m.SimpleStatementLine(body=[m.Expr(value=m.SimpleString() | m.ConcatenatedString())])):
            return False  # a docstring
        if m.matches(node, m.Assign(targets=[m.AssignTarget(target=m.Name("__all__"))])):
            return False
        if m.matches(node, m.If(test=m.Name("TYPE_CHECKING"))):
            return False
        if m.matches(node, m.Call(func=m.Name("len") | m.Name("isinstance"))):
            return True  # an error whatever is done with its arguments
        changed = [new for kind, change in OPERATORS if isinstance(node, kind) for new in change(node)]
        if changed:
            start = self.get_metadata(PositionProvider, self._statements[-1]).start.line
            self.found.append(_Place(node, changed, start, self._bodies > 0))
        return True


class _Replaced(cst.CSTTransformer):
    def __init__(self, old: cst.CSTNode, new: cst.CSTNode) -> None:
        self.old, self.new = old, new

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        return self.new if original_node is self.old else updated_node


class Places:
    """A module's source, and every place where it can be changed."""

    def __init__(self, path: str, source: str) -> None:
        wrapper = MetadataWrapper(cst.parse_module(source))
        self.path, self.module = path, wrapper.module
        visitor = _Places()
        wrapper.visit(visitor)
        self._positions = wrapper.resolve(PositionProvider)
        self._places = visitor.found

    def __len__(self) -> int:
        return len(self._places)

    def where(self, number: int) -> tuple[range, bool]:
        """Return the lines of a place's statement up to its own, and whether that is in a function."""
        place = self._places[number]
        return range(place.first, self._positions[place.node].start.line + 1), place.called

    def mutant(self, number: int, random: Random) -> Mutant | None:
        """Return one of the changes at a place, by chance; None if it is no Python or changes nothing."""
        place = self._places[number]
        node, new = place.node, random.choice(place.changes)
        source = self.module.visit(_Replaced(node, new)).code
        if source == self.module.code:
            return None
        try:
            compile(source, self.path, "exec", dont_inherit=True)
        except SyntaxError:
            return None
        start = self._positions[node].start
        code = self.module.code_for_node
        return Mutant(
            self.path,
            start.line,
            start.column,
            code(node).strip(),
            code(new).strip(),
            place.first,
            place.called,
            source,
        )


def sample(sources: dict[str, str], number: int, random: Random) -> list[Mutant]:
    """Return up to `number` mutants at different places, each place as likely as any other."""
    modules = [Places(path, sources[path]) for path in sorted(sources)]
    waiting = [(module, place) for module in modules for place in range(len(module))]
    random.shuffle(waiting)
    found: list[Mutant] = []
    for module, place in waiting:
        if len(found) == number:
            break
        mutant = module.mutant(place, random)
        if mutant:
            found.append(mutant)
    return found
