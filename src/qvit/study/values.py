"""Check single values of a study's file: mappings of known keys, lists, lines, whole numbers, seeds, options.

Each function returns the checked value; `what` names it in the `ConfigError` raised for an invalid one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from qvit.data.options import LARGEST_SEED
from qvit.errors import ConfigError, nearest, printable

GIVEN = ("dataset", "model", "student", "seed", "scratch")  # set by the study, never by options
MOST_RUNS = 20_000  # per study; planning and reporting more takes minutes
MOST_SEEDS = 10_000


def mapping(said: Any, what: str, known: Sequence[str] = (), *, empty: bool = False) -> dict[str, Any]:
    """Return a mapping, checked for unknown keys; if it may be `empty`, None gives an empty one."""
    if said is None and empty:
        return {}
    if not isinstance(said, dict):
        raise ConfigError(f"{what} must hold `key: value` lines, got {said!r}.")
    for key in said:
        if known and key not in known:
            raise ConfigError(f"{what} has no key '{key}'.{nearest(key, known)} Known: {', '.join(known)}.")
        if not isinstance(key, str) and (type(key) is not int or str(key) in said):
            raise ConfigError(f"{what} has the key {key!r}, which must be text; put it in quotes or rename it.")
    return {str(key): value for key, value in said.items()}


def several(said: Any, what: str, *, empty: bool = False, most: int = MOST_RUNS) -> list[Any]:
    """Return a list, of at least one item unless it may be `empty`; a single item need not be in a list."""
    items = said if isinstance(said, list) else [] if said is None else [said]
    if not items and not empty:
        raise ConfigError(f"{what} must name at least one.")
    check_number(len(items), what, most)
    for item, number in Counter(map(repr, items)).items():
        if number > 1:
            raise ConfigError(f"{what} names {item} twice.")
    return items


def check_number(number: int, what: str, most: int) -> None:
    """Raise `ConfigError` if there are more than `most` of something."""
    if number > most:
        raise ConfigError(f"{what} must be at most {most:,} in number, got {number:,}; make several studies of it.")


def line(said: Any, what: str) -> str:
    """Return a line of text, with runs of white space replaced by one space."""
    if not isinstance(said, str) or not said.strip():
        raise ConfigError(f"{what} must be text, got {said!r}.")
    return printable(" ".join(said.split()))


def whole(said: Any, what: str, *, least: int) -> int:
    """Return a whole number of at least `least`."""
    if not isinstance(said, int) or isinstance(said, bool) or said < least:
        raise ConfigError(f"{what} must be whole numbers of at least {least}, got {said!r}.")
    return said


def seeds(said: Any, what: str) -> list[int]:
    """Return a list of seeds; the number 5 means 0 to 4."""
    if isinstance(said, list):
        found = [whole(seed, what, least=0) for seed in several(said, what, most=MOST_SEEDS)]
        if max(found) > LARGEST_SEED:
            raise ConfigError(f"{what} must be at most {LARGEST_SEED}, got {max(found)}.")
        return found
    check_number(whole(said, what, least=1), what, MOST_SEEDS)
    return list(range(said))


def options(said: Any, what: str, *elsewhere: str) -> dict[str, Any]:
    """Return options; raises `ConfigError` for those in `GIVEN` or `elsewhere`."""
    options = mapping(said, what, empty=True)
    for key in (*GIVEN, *elsewhere):
        if key in options:
            raise ConfigError(f"{what} cannot set '{key}': the study's datasets, models, seeds and regimes do.")
    return options
