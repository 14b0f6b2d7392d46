"""The code that a run executes, as a number: any change of what is computed counts, and no other."""

import ast
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

import qvit
from qvit.study import code
from qvit.study.code import COMPUTED_BY, ENTRY, Sources, _meaning, code_digest
from qvit.study.work import Work, execute

MakeNpz = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's sources, taken for the package."""
    folder = tmp_path / "qvit"
    shutil.copytree(Path(qvit.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(qvit, "__file__", str(folder / "__init__.py"))
    code_digest.cache_clear()
    yield folder
    code_digest.cache_clear()


def digest_anew() -> str:
    code_digest.cache_clear()
    return code_digest()


def edited(path: Path, before: str, after: str) -> str:
    """Return the digest with one change, which is taken back."""
    kept = path.read_text()
    assert before in kept
    path.write_text(kept.replace(before, after, 1))
    try:
        return digest_anew()
    finally:
        path.write_text(kept)


@pytest.mark.long
def test_what_a_run_executes_counts(package: Path) -> None:
    first = digest_anew()
    assert digest_anew() == first
    found = {
        edited(package / name, before, after)
        for name, before, after in (
            ("models/vit.py", "depth: int = ", "depth: int = 1 + "),
            ("training/loop.py", "from qvit", "import cmath\nfrom qvit"),
            ("data/augment.py", "\n\n\ndef ", "\n\nMORE = 1\n\n\ndef "),
            ("distill/guide.py", "temperature: float = ", "temperature: float = 2 * "),
            ("quantum/engines/statevector_kernel.py", "\n\n\n@jit", "\n\n\nMORE = 1\n\n\n@jit"),
            ("quantum/engines/__init__.py", "torch.float32", "torch.float64"),
            ("study/work.py", "resume=True", "resume=False"),
        )
    }
    assert len({first, *found}) == 8


def test_words_and_layout_do_not_count(package: Path) -> None:
    first = digest_anew()
    assert edited(package / "models/vit.py", '"""', '"""Otherwise said: ') == first
    assert edited(package / "training/loop.py", "\n\n\n", "\n\n\n# a comment, and a line\n\n") == first
    assert edited(package / "quantum/circuit.py", "takes no Pauli word", "has no word of Paulis") == first
    assert edited(package / "quantum/pauli.py", "from dataclasses", '"""Another text."""\nfrom dataclasses') == first
    for path in package.rglob("*.py"):  # as git writes them for Windows
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert digest_anew() == first


def test_what_only_watches_or_shows_does_not_count(package: Path) -> None:
    first = digest_anew()
    for name in ("study/runner.py", "report/charts.py", "cli/app.py", "bench/step.py", "quantum/draw.py"):
        (package / name).write_text("# other\n")
    (package / "cli/new.py").write_text("print()\n")
    (package / "evaluation/ranking.py").unlink()  # its names are only passed on
    (package / "models/notes.txt").write_text("")
    assert digest_anew() == first


def test_a_new_module_counts_once_it_is_imported(package: Path) -> None:
    first = digest_anew()
    (package / "models/extra.py").write_text("X = 1\n")
    assert digest_anew() == first
    vit = package / "models/vit.py"
    vit.write_text(vit.read_text() + "\n\ndef late():\n    from qvit.models.extra import X\n    return X\n")
    second = digest_anew()
    (package / "models/extra.py").write_text("X = 2\n")
    assert len({first, second, digest_anew()}) == 3


def test_names_are_found_where_they_come_from(tmp_path: Path) -> None:
    package = tmp_path / "p"
    for name, text in {
        "__init__": "from p.shown import show\nVERSION = 1\n",
        "shown": "def show(): ...\n",
        "run": "from p.sub import deep, lazily\nimport json\nif TYPE_CHECKING:\n    from p.typed import T\n",
        "typed": "T = int\n",
        "sub/__init__": (
            "from p.sub.inner import deep\nfrom p.sub.other import more\n"
            "if TYPE_CHECKING:\n    from p.sub.late import lazily\n"
        ),
        "sub/inner": "import p.sub.helper as h\ndef deep(): ...\n",
        "sub/helper": "class A:\n    def f(self):\n        from p import shown\n",
        "sub/other": "more = 1\n",
        "sub/late": "lazily = 1\n",
    }.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert Sources(package).reached("p.run") == [
        "p.run", "p.shown", "p.sub", "p.sub.helper", "p.sub.inner", "p.sub.late",
    ]  # fmt: skip


@pytest.mark.long
def test_any_change_of_numbers_counts() -> None:
    """Fifty changes drawn from what runs execute: all count but those of what an error says."""
    from mutants.places import Places  # brings a parser of its own

    root = Path(qvit.__file__).parent
    sources, random = Sources(root), Random(0)
    places = {}
    for name in sources.reached(ENTRY):
        if name.split(".")[1:2] in (["quantum"], ["models"], ["training"]):
            relative = name.replace(".", "/")
            path = f"{relative}/__init__.py" if sources.is_package(name) else f"{relative}.py"
            places[name] = Places(path, (root.parent / path).read_text())
    every = [(name, place) for name, known in places.items() for place in range(len(known))]
    counted, tried = 0, 0
    while tried < 50:
        name, place = random.choice(every)
        mutant = places[name].mutant(place, random)
        if mutant is None:
            continue
        tried += 1
        before, after = sources.tree(name), ast.parse(mutant.source)
        moved = _meaning(before, is_package=False) != _meaning(after, is_package=False)
        raised = any(
            isinstance(node, ast.Raise) and node.lineno <= mutant.line <= (node.end_lineno or 0)
            for node in ast.walk(before)
        )
        assert moved or raised, mutant
        counted += moved
    assert 40 <= counted < 50


@pytest.mark.trains
@pytest.mark.long
def test_nothing_else_of_the_package_is_executed(make_npz: MakeNpz, tmp_path: Path) -> None:
    root = Path(qvit.__file__).parent
    seen: set[str] = set()

    def note(frame: FrameType, *_: Any) -> None:
        if frame.f_code.co_name != "<module>":  # which importing executes, whoever asks for it
            seen.add(frame.f_code.co_filename)

    base = {"dataset": str(make_npz()), "model": "qvit_4q1h", "epochs": 1}
    sys.setprofile(note)
    try:
        execute(Work("t", "t", base, tmp_path / "t", tmp_path / "outputs"))
        taught = base | {"mixtures": 10, "scratch": False}
        execute(Work("s", "s", taught, tmp_path / "s", tmp_path / "outputs", teachers=(tmp_path / "t",)))
    finally:
        sys.setprofile(None)
    executed = {Path(name).relative_to(root).with_suffix("") for name in seen if name.startswith(str(root))}
    names = {".".join(("qvit", *path.parts)).removesuffix(".__init__") for path in executed}
    assert len(names) > 30
    assert names <= set(Sources(root).reached(ENTRY))


def test_versions_count(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest_anew()
    real = code.version
    found = set()
    for changed in COMPUTED_BY:
        monkeypatch.setattr(code, "version", lambda name, new=changed: "9.9" if name == new else real(name))
        found.add(digest_anew())
    monkeypatch.setattr(code, "version", real)
    monkeypatch.setattr(code, "KERNELS", code.KERNELS + 1)
    assert len({first, *found, digest_anew()}) == 2 + len(COMPUTED_BY)
