"""JSON and YAML that came from outside: read whole, within bounds, or refused in one line."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from qvit.errors import FileError
from qvit.files import read_text

LARGEST_JSON = 64 << 20  # bytes; metrics of a hundred thousand epochs
LARGEST_YAML = 256 << 10  # bytes; some seconds of reading
DEEPEST = 64  # mappings and lists within one another
MOST_VALUES = 100_000  # in a YAML document, aliases written out
MOST_BITS = 64  # of a whole number


def read_json(path: Path, *, most: int = LARGEST_JSON) -> Any:
    """Return what a JSON file of at most `most` bytes says; raises `FileError` as `read_text` and `parse_json` do."""
    return parse_json(read_text(path, most=most), str(path))


def parse_json(text: str, what: str) -> Any:
    """Return what a JSON text says; raises `FileError`, which calls it `what`, if it is not JSON or out of bounds."""
    try:
        value = json.loads(text, parse_float=_finite, parse_int=_whole, object_pairs_hook=_unique)
    except RecursionError as error:
        raise FileError(f"{what} is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:  # also for numbers with thousands of digits
        raise FileError(f"{what} is not valid JSON: {one_line(error)}.") from error
    _check(value, what, most=len(text) + 1)
    return value


def read_yaml(path: Path, *, most: int = LARGEST_YAML) -> Any:
    """Return what a YAML file of at most `most` bytes says; raises `FileError` as `read_text` and `parse_yaml` do."""
    return parse_yaml(read_text(path, most=most), str(path))


def parse_yaml(text: str, what: str) -> Any:
    """Return what a YAML text says, by the core schema of YAML 1.2: `010` is ten, `yes` and `1:30` are text.

    Raises `FileError`, which calls it `what`, if it is not YAML, has a key twice, or is out of bounds.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise FileError(f"{what} is not valid YAML: it is nested too deeply.") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # numbers too large; OverflowError: "\UFFFFFFFF"
        raise FileError(f"{what} is not valid YAML: {_told(error)}.") from error
    _check(value, what, most=MOST_VALUES)
    return value


def one_line(error: object) -> str:
    """Return another library's message on one line, without the full stop at its end."""
    return " ".join(str(error).split()).rstrip(".")


def _told(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return one_line(error)
    parts = [part for part in (error.context, error.problem) if part]
    return one_line(f"line {error.problem_mark.line + 1}: {', '.join(parts)}")


def _check(value: Any, what: str, *, most: int) -> None:
    """Refuse what no configuration needs and is hard to print or store: depth, bulk, lone surrogates."""
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > DEEPEST:
            raise FileError(f"{what} is nested too deeply: more than {DEEPEST} mappings or lists within one another.")
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, str):
                _check_text(item, what)
            elif isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            if len(inner) > most:
                raise FileError(f"{what} holds too many values: more than {most:,}.")
        layer = inner


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FileError(f"{what} holds text that is not valid Unicode: {text!a:.80}.") from error


class _Loader(yaml.SafeLoader):
    """A loader for YAML 1.2's core schema; PyYAML itself follows YAML 1.1, where `010` is eight and `no` is false."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - as PyYAML has it
        """Begin a `[` or `{`, if not too deep: the time that each word takes grows with the number around it."""
        if self.flow_level > DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; refuses a key given twice, which would hide a value."""
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise _refusal("a key must be a single value", key_node)
            if key in seen:
                raise _refusal(f"the key {key!r:.80} appears twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refusal(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _resolver(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$", re.ASCII), list(first))


_resolver("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolver("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_resolver(
    "float",
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+.0123456789",
)
_resolver("null", "~|null|Null|NULL|", "~nN\0")
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    word = _word(loader, node, "int")
    return _whole(word, 0) if word[:2] in ("0o", "0x") else _whole(word)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    word = _word(loader, node, "float", "int").lower()
    if word.lstrip("+-") in (".inf", ".nan"):
        return float(word.replace(".", ""))
    return _finite(word)


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return _word(loader, node, "bool").lower() == "true"


def _nothing(loader: _Loader, node: yaml.ScalarNode) -> None:
    _word(loader, node, "null")


def _word(loader: _Loader, node: yaml.ScalarNode, *kinds: str) -> str:
    """Return a scalar's text; refuses one that is of none of these kinds, whatever a tag such as `!!int` says."""
    word = str(loader.construct_scalar(node))
    tag = str(loader.resolve(yaml.ScalarNode, word, (True, False)))  # type: ignore[no-untyped-call]
    if tag.rpartition(":")[2] not in kinds:
        raise _refusal(f"{word!r:.40} is not what its tag says, {kinds[0]}", node)
    return word


def _whole(word: str, base: int = 10) -> int:
    if len(word) <= MOST_BITS + 2:  # more digits take time that grows with their square
        value = int(word, base)
        if value.bit_length() <= MOST_BITS:
            return value
    raise ValueError(f"the whole number {word:.20}… is too large, of more than {MOST_BITS} bits")


def _finite(word: str) -> float:
    """Return a decimal word as a number; raises `ValueError` for one so large that it would become infinity."""
    value = float(word)
    if math.isinf(value):
        raise ValueError(f"the number {word:.40} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raises `ValueError` for a key given twice, which would hide a value."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r:.80} appears twice")
    return made


# Only these: the sets, dates, pairs and bytes of YAML 1.1 are not values of any option.
_Loader.yaml_constructors = {
    tag: made
    for tag, made in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("str", "seq", "map")
} | {
    f"tag:yaml.org,2002:{kind}": made
    for kind, made in {"int": _integer, "float": _number, "bool": _truth, "null": _nothing}.items()
}
