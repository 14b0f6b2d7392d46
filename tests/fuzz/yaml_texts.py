"""YAML texts, as an options file or a value on the command line may hold them."""

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
    b"!!python/name:os.system ",
    b"<<: ",
    b"%YAML 1.1\n---\n",
    b"---\n",
    b"...\n",
)
SCALARS = (b"9" * 5000, b"1e999", b"0x", b".nan", b"-.inf", b'"\\ud800"', b"010", "é×ﬃ\u2028".encode())
BYTES = (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf")
NESTED = (b"[" * 300, b"a: {" * 100)
PIECES = MARKS + TAGS + SCALARS + BYTES + NESTED


def _valid(random: Random) -> bytes:
    return random.choice(TEXTS)


def _mutate(random: Random, content: bytes) -> bytes:
    for _ in range(random.randint(1, 3)):
        place = random.randint(0, len(content))
        end = min(len(content), place + random.choice((0, 0, 1, 3, 20)))
        new = random.choice((*PIECES, random.randbytes(random.randint(1, 4)), content[:place][-30:], b""))
        content = content[:place] + new + content[end:]
    return content


def _attempt(content: bytes, folder: Path) -> None:
    path = folder / "options.yaml"
    path.write_bytes(content)
    said = read_yaml(path)
    assert parse_yaml(content.decode(), "text") == said or said != said


KIND = Kind("yaml_texts", 20_000, _valid, _mutate, _attempt)
