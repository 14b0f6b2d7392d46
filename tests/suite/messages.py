"""Which messages a package raises, so that tables of wrong inputs can be checked to have them all."""

import ast
import builtins
import re
from collections.abc import Iterable
from pathlib import Path

LEAST = 8  # letters that a message has of its own; those with fewer pass on another's


def _pattern(node: ast.expr) -> str:
    """Return what an expression of text may come to: what is put in is anything."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(map(_pattern, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _pattern(left) + _pattern(right)
        case ast.IfExp(body=body, orelse=other):
            return f"(?:{_pattern(body)}|{_pattern(other)})"
        case ast.Call(func=ast.Attribute(value=value, attr="strip")):
            return _pattern(value)
    return ".*"


def raised(*files: Path) -> dict[str, re.Pattern[str]]:
    """Return the patterns of all messages that files raise, by file and line."""
    found = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                if ast.unparse(node.exc.func) == "AssertionError":
                    continue  # never to be seen
                pattern = _pattern(node.exc.args[0])
                if hasattr(builtins, ast.unparse(node.exc.func)):  # an error of Python's ends up inside one of ours
                    pattern = f".*{pattern}.*"
                if len(re.findall("[A-Za-z]", pattern)) >= LEAST:
                    found[f"{path.name}:{node.lineno}"] = re.compile(pattern, re.DOTALL)
    return found


def missing(patterns: dict[str, re.Pattern[str]], messages: Iterable[str]) -> list[str]:
    """Return where messages are raised of which none of these is one."""
    known = list(messages)
    return sorted(place for place, one in patterns.items() if not any(one.fullmatch(told) for told in known))


def written(*files: Path) -> set[str]:
    """Return all texts that files hold, what is put into one as a zero character."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    found.add(text)
                case ast.JoinedStr(values=parts):
                    found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts))
    return found
