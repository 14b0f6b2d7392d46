"""What a dataset says of where its pictures came from and whose they are, so that it can be given away."""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

_PLAIN = re.compile(r"(?:[^/\\.][^/\\]*/)*[^/\\.][^/\\]*")  # nothing in it leads up, or to where it is
SHORT = 3  # letters of a name that other words may hold


def hashed(group: str, salt: bytes) -> str:
    """Return 16 hexadecimal digits in place of a group's name; without the secret salt nobody can try names out."""
    return hashlib.blake2b(group.encode(), key=salt, digest_size=8).hexdigest()


def below(folder: Path, source: str) -> str:
    """Return the path of a picture relative to the folder, or its name alone if it lies elsewhere."""
    if _PLAIN.fullmatch(source):
        return source
    inside = os.path.relpath(folder / source, folder).replace(os.sep, "/")
    return source.rpartition("/")[2] if inside.startswith("../") else inside


def without(source: str, group: str, instead: str) -> str:
    """Return a path in which the group's name, which may be a person's, is replaced.

    It is found in any case, with anything but letters and digits between its words. A number is not looked for in
    longer ones, nor a name of up to `SHORT` letters in longer words. Where each file is a group, and is called by its
    path, that stays.
    """
    return source if source == group else _name_in_paths(group).sub(instead, source)


@lru_cache(maxsize=1 << 16)
def _name_in_paths(group: str) -> re.Pattern[str]:
    words = re.findall(r"[^\W_]+", group) or [group]
    before, after = _apart(words[0][0], group), _apart(words[-1][-1], group)
    body = r"[\W_]*".join(map(re.escape, words))
    return re.compile(f"(?<!{before}){body}(?!{after})", flags=re.IGNORECASE)


def _apart(end: str, group: str) -> str:
    """Return a pattern of what must not stand beside this end of a name."""
    if end.isdecimal():
        return r"\d"
    return r"[^\W\d_]" if len(group) <= SHORT else r"[^\w\W]"  # nothing is that
