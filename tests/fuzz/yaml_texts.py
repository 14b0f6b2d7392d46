"""YAML texts, as an options file or a value on the command line may hold them."""

import re
from pathlib import Path
from random import Random

from fuzz.harness import Kind
from qvit.documents import parse_yaml, read_yaml

TEXTS = (
    b"lr: 0.005\nepochs: 100\nmodel: qvit_4q2h\naugment: true\nclip_norm: null\n",
    b"datasets: [a, b]\nmodels:\n  - {kind: [qvit, vit_matched], qubits: [4, 8]}\n  - cosine_4q2h\n",
    b"a: &x {b: 1}\nc: *x\ntext: |\n  one\n  two\nother: >-\n  three\n",
)
MARKS = (b"[", b"{", b"]", b"}", b"- ", b": ", b"? ", b"'", b'"', b"#", b"|", b">", b"@", b"`", b"\n", b"\t")
TAGS = (
    b"&a ",
    b"*a",
    b"!!int ",
    b"!!float ",
    b"!!bool ",
    b"!!null ",
    b"!!map ",
    b"!!seq ",
    b"!!str ",
    b"!!merge ",
    b"!!python/name:os.system ",
    b"<<: ",
    b"%YAML 1.1\n---\n",
    b"---\n",
    b"...\n",
)
SCALARS = (
    b"9" * 5000,
    b"9" * 20,
    b"1e999",
    b"0x",
    b"0x" + b"f" * 99,
    b".nan",
    b"-.inf",
    b'"\\ud800"',
    b'"\\UFFFFFFFF"',
    b"010",
    "é×ﬃ\u2028".encode(),
)
SMALL = (b"1", b"0", b"-1", b"2.5", b"yes", b"true", b"null", b"[1, 2]", b"{}", b"1_000", b"1:30", b"~", b"x")
BYTES = (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf")
NESTED = (b"[" * 300, b"a: {" * 100)
PIECES = MARKS + TAGS + SCALARS + BYTES + NESTED


def _valid(random: Random) -> bytes:
    return random.choice(TEXTS)


def mutated(random: Random, content: bytes, pieces: tuple[bytes, ...] = PIECES) -> bytes:
    """Return content with one to three words, or any other places, overwritten by pieces or by other parts of it."""
    words = random.random() < 0.5
    for _ in range(random.randint(1, 3)):
        new = random.choice((*pieces, random.randbytes(random.randint(1, 4)), b""))
        if words and (found := list(re.finditer(rb"[\w.*-]+", content))):
            place, end = random.choice(found).span()
            new = random.choice((new, random.choice(found)[0], random.choice(SMALL)))
        else:
            place = random.randint(0, len(content))
            end = min(len(content), place + random.choice((0, 0, 1, 3, 20)))
            new = random.choice((new, new, content[:place][-30:]))
        content = content[:place] + new + content[end:]
    return content


def _attempt(content: bytes, folder: Path) -> None:
    path = folder / "options.yaml"
    path.write_bytes(content)
    said = read_yaml(path)
    assert repr(parse_yaml(content.decode(), "text")) == repr(said)
    for value in (said, *said) if isinstance(said, list) else (said,):
        assert value is None or isinstance(value, (bool, int, float, str, list, dict))


KIND = Kind("yaml_texts", 20_000, _valid, mutated, _attempt)
