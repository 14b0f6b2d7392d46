"""Tables of pictures: texts that a spreadsheet, a script or a hand may have written."""

from pathlib import Path
from random import Random

from fuzz.harness import Kind
from fuzz.yaml_texts import mutated
from qvit.data.table import list_table

TABLES = (
    "path,label\na.png,cyst\nb/c.jpg,tumour\nd.dcm,cyst\n",
    'sep=;\r\nimage;class;patient;split\r\n"a;1.png";2;P1;train\r\nb.png;0;P2;test\r\nc.png;1;P1;train\r\n',
    "file\tedema\tmass\tPatient ID\nx\\a.tif\t1\t0\t7\ny\\b.tif\t0.0\t1.0\t007\n",
    "img|target|class_name|fold\n1.png|1|eins|val\n2.png|3|drei|train\n3.png|1|eins|test\n",
    "path\ncyst/a.png\ntumour/b.png\n",
)
PIECES = (b",", b";", b"\t", b"|", b'"', b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"sep=,")
WORDS = (b"path", b"label", b"split", b"class_name", b"patient", b"nan", b"N/A", b"..", b"../../x.png", b"/etc/passwd")
NUMBERS = (b"9" * 5000, b"1e5", b"-1", b"0.0", b"1.0", b"00", "\u0663".encode(), "\u00b2".encode())
OTHERS = ("\u2028".encode(), "\u00a0".encode(), b"x" * 1001, b'"\n' * 50, b"'", b"=cmd|' /C calc'!A0", b"a.png," * 400)
OPTIONS: tuple[dict[str, str], ...] = (
    *({}, {}, {"label": "*"}, {"label": "label"}),
    *({"label": "edema,mass"}, {"group_by": "patient"}, {"group_by": "([a-z])"}),
)


def _valid(random: Random) -> bytes:
    return random.choice(TABLES).encode(random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))


def _mutate(random: Random, content: bytes) -> bytes:
    return mutated(random, content, (*PIECES, *WORDS, *NUMBERS, *OTHERS))


def _attempt(content: bytes, folder: Path) -> None:
    path = folder / "own.csv"
    path.write_bytes(content)
    options = VALID.get(content, OPTIONS[sum(content) % len(OPTIONS)])
    found = list_table(path, **options)
    assert len(found.files) == len(found.labels) > 0
    assert found.labels.min() >= 0
    assert found.multi_label or found.labels.max() < len(found.classes)
    assert len({*found.classes}) == len(found.classes) >= 2
    assert {len(each) for each in (found.sides, found.groups) if each is not None} <= {len(found.files)}


# Valid tables are read as they are, but for the one of two labels; damaged ones with options that fit some of them.
VALID = {
    text.encode(coding): {"label": "*"} if "mass" in text else {}
    for text in TABLES
    for coding in ("utf-8", "utf-8-sig", "utf-16")
}
KIND = Kind("tables", 20_000, _valid, _mutate, _attempt)
