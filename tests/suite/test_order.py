"""Tests follow the modules: those of `room/x.py` are in `tests/room/test_x.py`, or by theme in `test_x_theme.py`."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src" / "qvit"
NO_ROOMS = ("fuzz", "mutants", "suite")  # what these test is their own
ACROSS = {  # what is about several modules on purpose, and why
    "cli/test_knobs.py": "what each option of each command changes, as one table",
    "cli/test_mistakes.py": "what no command may do when it refuses",
    "cli/test_process.py": "what only a process of its own can show",
    "cli/test_wrong_options.py": "a wrong value of each option of each command, as one table",
    "data/test_names.py": "all that takes a name of a file",
    "data/test_refusals.py": "each error of the room, as one table",
    "distill/test_wrong_inputs.py": "each error of the room, as one table",
    "distill/test_wrong_options.py": "options of guide and stages, however they come",
    "evaluation/test_messages.py": "each error of the room, as one table",
    "models/test_derivatives.py": "a model has those derivatives that all of its parts have",
    "models/test_knobs.py": "each field of each configuration, as one table",
    "models/test_memory.py": "what a whole model keeps",
    "models/test_messages.py": "each error of the room, as one table",
    "models/test_refusals.py": "the same sizes, names and images for all models",
    "models/test_subclasses.py": "images of other types on their way through model, loss and teacher",
    "models/test_tracing.py": "whole models in torch's compilers",
    "quantum/test_compilers.py": "circuits by every engine in torch's compilers",
    "quantum/test_gradients.py": "the same gradients by every engine",
    "quantum/test_knobs.py": "each option of each circuit, layer and plan, as one table",
    "quantum/test_large_angles.py": "the same digits by every engine",
    "quantum/test_oracle.py": "every engine against the slow reference",
    "quantum/test_pennylane.py": "every engine against another library",
    "quantum/test_refusals.py": "each error of the room, as one table",
    "quantum/test_transforms.py": "the same in torch's transforms by every engine",
    "report/test_messages.py": "each error of the room is in some test",
    "study/test_killed.py": "real processes: workers, drivers, Ray",
    "study/test_messages.py": "each error of the room is in some test",
    "tune/test_messages.py": "each error of the room is in some test",
}
ELSEWHERE = {  # modules without a file of their own, and where they are tested
    "__main__": "cli/test_process.py",
    "lazy": "test_qvit.py",
    "torch_private": "quantum/test_transforms.py",
    "validate": "training/test_options.py",
    "cli/cli": "cli/test_streams.py",
    "cpu/bundles": "models/test_block.py",
    "data/distort_kernel": "data/test_distort.py",
    "data/likeness_kernel": "data/test_likeness.py",
    "data/mixup_kernel": "data/test_mixup.py",
    "data/squares_kernel": "data/test_squares.py",
    "models/attention_kernel": "models/test_attention.py",
    "models/block_call": "models/test_block.py",
    "models/block_kernel": "models/test_block.py",
    "models/dense_kernel": "models/test_dense.py",
    "models/embedding_kernel": "models/test_embedding.py",
    "models/features_kernel": "models/test_features.py",
    "models/head_kernel": "models/test_block.py",
    "models/reverse": "models/test_derivatives.py",
    "models/stacked_layers": "models/test_stack.py",
    "quantum/call": "quantum/test_transforms.py",
    "quantum/engine": "quantum/test_choose.py",
    "quantum/heisenberg_kernel": "quantum/test_operator.py",
    "quantum/layout": "quantum/test_oracle.py",
    "quantum/limits": "quantum/test_refusals.py",
    "quantum/real": "quantum/test_oracle.py",
    "quantum/statevector": "quantum/test_operator.py",
    "quantum/statevector_kernel": "quantum/test_operator.py",
    "quantum/tables": "quantum/test_oracle.py",
    "quantum/unitary": "quantum/test_oracle.py",
    "report/controls": "report/test_claims.py",
    "report/drawing": "report/test_charts.py",
    "study/stored": "report/test_arms.py",
    "training/config": "training/test_options.py",
    "training/described": "training/test_run.py",
    "training/evaluated": "training/test_run.py",
    "training/machine": "training/test_step.py",
    "training/objective": "training/test_step.py",
    "training/records": "training/test_loop.py",
    "training/state": "training/test_together.py",
    "training/validation": "training/test_step.py",
    "tune/trials": "tune/test_work.py",
    "tune/tuned": "tune/test_tuner.py",
}


def module_of(path: Path, source: Path) -> str | None:
    """Return `room/name`, whatever is in between; a package's own code has its name; None if that only offers names."""
    *rooms, name = path.relative_to(source).with_suffix("").parts
    if name == "__init__":
        if not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(path.read_text()).body):
            return None
        name = path.parent.name
    return "/".join([*rooms[:1], name])


def owner(test: str, modules: set[str]) -> str | None:
    """Return the module that a file of tests is named after, that of the longest name, if there is one."""
    room, slash, name = test.removesuffix(".py").rpartition("/")
    words = name.removeprefix("test_").split("_")
    names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    return next((f"{room}{slash}{name}" for name in names if f"{room}{slash}{name}" in modules), None)


def disorder(source: Path, tests: Path, across: dict[str, str], elsewhere: dict[str, str]) -> list[str]:
    """Return what is not as it should be, a line each."""
    modules = {module for path in source.rglob("*.py") if (module := module_of(path, source))}
    files = {path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    files = {name for name in files if name.partition("/")[0] not in NO_ROOMS}
    owners = {name: owner(name, modules) for name in files}
    tested = set(owners.values())
    return [
        *(f"{name} is named after no module" for name in files if owners[name] is None and name not in across),
        *(f"{name} is among those across modules, and is not there" for name in across.keys() - files),
        *(f"{name} is among those across modules, and of {owners[name]}" for name in across if owners.get(name)),
        *(f"{module} has no tests" for module in modules - tested - elsewhere.keys()),
        *(f"{module} is among those tested elsewhere, and is not there" for module in elsewhere.keys() - modules),
        *(f"{module} is among those tested elsewhere, and has tests" for module in elsewhere.keys() & tested),
        *(f"{name}, where modules are tested, is not there" for name in set(elsewhere.values()) - files),
    ]


def test_tests_follow_the_modules() -> None:
    assert sorted(disorder(SOURCE, TESTS, ACROSS, ELSEWHERE)) == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ("", None),
        ("+ src/room/new.py", "room/new has no tests"),
        ("+ src/room/inner/new.py", "room/new has no tests"),
        ("+ src/new.py", "new has no tests"),
        ("- tests/room/test_one_theme.py", None),
        ("- tests/room/test_one.py", None),
        ("+ tests/room/test_other.py", "room/test_other.py is named after no module"),
        ("+ tests/room/test_ones.py", "room/test_ones.py is named after no module"),
        ("+ tests/room/inner/test_one.py", "room/inner/test_one.py is named after no module"),
        ("+ tests/else/test_one.py", "else/test_one.py is named after no module"),
        ("+ tests/suite/test_other.py", None),
        ("- tests/room/test_all.py", "room/test_all.py is among those across modules, and is not there"),
        ("+ src/room/all.py", "room/test_all.py is among those across modules, and of room/all"),
        ("- src/room/two_parts.py", "room/two_parts is among those tested elsewhere, and is not there"),
        ("+ tests/room/test_two_parts.py", "room/two_parts is among those tested elsewhere, and has tests"),
        ("- tests/test_top.py", "test_top.py, where modules are tested, is not there"),
    ],
)
def test_disorder_is_told(changed: str, complaint: str | None, tmp_path: Path) -> None:
    names = ["src/top.py", "src/room/__init__.py", "src/room/one.py", "src/room/two_parts.py", "tests/test_top.py"]
    names += ["tests/room/test_one.py", "tests/room/test_one_theme.py", "tests/room/test_all.py"]
    how, _, name = changed.partition(" ")
    for one in {*names, *([name] if how == "+" else [])} - ({name} if how == "-" else set()):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).touch()
    across, elsewhere = {"room/test_all.py": "all"}, {"room/two_parts": "test_top.py"}
    found = disorder(tmp_path / "src", tmp_path / "tests", across, elsewhere)
    assert (complaint in found) if complaint else (found == [])


def test_the_code_of_a_package_is_a_module_and_names_that_it_offers_are_none(tmp_path: Path) -> None:
    package = tmp_path / "room" / "part"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from room.part.one import run\n\n__all__ = ['run']\n")
    assert module_of(package / "__init__.py", tmp_path) is None
    (package / "__init__.py").write_text("def run():\n    pass\n")
    assert module_of(package / "__init__.py", tmp_path) == "room/part"
    assert owner("room/test_part_by_theme.py", {"room/part", "room/part_by", "part"}) == "room/part_by"
