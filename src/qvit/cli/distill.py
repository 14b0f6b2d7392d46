"""`qvit distill`: distil a teacher into a small student, stage after stage."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import epoch_progress, heavy_imports, print_json, print_table, say
from qvit.cli.data import Root
from qvit.cli.options import (
    Assign,
    Config,
    Data,
    Dataset,
    GroupBy,
    Json,
    Label,
    Memory,
    Offline,
    Seed,
    Size,
    Task,
    dataset_option,
    gather,
)
from qvit.cli.seeds import check_several, conclude, furthest_progress, unstackable_of
from qvit.data.registry import name_of
from qvit.files import expanded

if TYPE_CHECKING:
    from qvit.distill import DistillationConfig, Teacher
    from qvit.distill.measures import Measures, Network

OnStage = Callable[[str, int], Any]
OnViews = Callable[[int, int], None]
COLUMNS = ["", "parameters", "FLOPs", "AUC", "ACC", "ECE", "agreement", "KL", "gap closed: AUC", "ACC"]
CAPTION = (
    "Test images. Agreement with the teacher: share of equal decisions; KL(teacher ‖ student) in nats; "
    "gap closed: share of the teacher's lead over the student from scratch."
)


def distill(
    dataset: Dataset = None,
    teacher: Annotated[
        list[Path] | None, typer.Option(help="Run folder of a teacher; several make an ensemble.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="A model's name, see `qvit models`.", show_default="qvit_4q2h")
    ] = None,
    seed: Seed = None,
    seeds: Annotated[
        int | None, typer.Option(help="Distil so many students, of --seed and the numbers after it, together.")
    ] = None,
    memory: Memory = 1.0,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs from scratch and on the teacher.", show_default="100")
    ] = None,
    kd_loss: Annotated[
        str | None, typer.Option(help="soft, ordinal, mse, decoupled or none.", show_default="soft")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Softens the outputs of teacher and student.")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="With --joint: weight of the teacher against the labels.", show_default="0.5")
    ] = None,
    joint: Annotated[bool, typer.Option("--joint", help="One stage on teacher and labels at once.")] = False,
    transfer_set: Annotated[
        str | None,
        typer.Option(help="Other images for the first stage: a dataset, a folder, or an .npz file; no labels."),
    ] = None,
    mixtures: Annotated[
        int | None,
        typer.Option(
            help="Images made from the training images for the first stage; 0: use the training images.",
            show_default="4000 if there are fewer training images, else 0",
        ),
    ] = None,
    pretrain: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of training for the first stage alone.")
    ] = None,
    finetune: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of training for the second stage alone.")
    ] = None,
    scratch: Annotated[
        bool | None,
        typer.Option(
            "--scratch/--no-scratch", help="Also train the student from labels alone.", show_default="scratch"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs.", show_default="runs/DATASET-STUDENT-kd-sSEED")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of teacher outputs.", show_default="in your cache folder")
    ] = None,
    config: Config = None,
    assign: Assign = None,
    data: Data = None,
    task: Task = None,
    size: Size = None,
    label: Label = None,
    group_by: GroupBy = None,
    root: Root = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted distillation.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Pre-train a student on a teacher's outputs, fine-tune it on labels, and measure the gain.

    The teacher is a trained run (see `qvit teacher`) or several. Its outputs are computed once and kept.

    Each stage is a run folder of its own: scratch, pretrain and finetune, or joint. With --seeds, several students are
    trained together, each into a folder with its seed: --out, or runs, then holds these.

    --set takes options of training, of the model, and of distillation (beta, feature_weight, attention_weight).
    """
    from qvit.errors import ConfigError

    with heavy_imports():
        from qvit.distill import Teacher, resolve_distillation
        from qvit.distill import distill as run_distillation
        from qvit.training.folder import short_name
        from qvit.training.machine import check_device
        from qvit.training.options import parse_assignment

    stages = {"pretrain": pretrain, "finetune": finetune}
    named: dict[str, Any] = {"dataset": dataset_option(dataset, data), "model": student, "seed": seed}
    named |= {"epochs": epochs, "kd_loss": kd_loss, "temperature": temperature, "alpha": alpha, "task": task}
    named |= {
        "size": size,
        "label": label,
        "group_by": group_by,
        "joint": joint or None,
        "transfer_set": transfer_set,
        "mixtures": mixtures,
        "scratch": scratch,
    }
    options = gather(config, assign, named)
    for stage, assignments in stages.items():
        given = options.get(stage) or {}
        if assignments and isinstance(given, dict):  # anything else is refused below
            options[stage] = given | dict(parse_assignment(text, f"--{stage}") for text in assignments)
    teachers = _teachers(teacher, options.pop("teacher", None))
    if not teachers:
        raise ConfigError("No teacher given; name the folder of a trained run with --teacher (see `qvit teacher`).")
    resolved = resolve_distillation(options)
    device = resolved.student.train.device
    check_device(device)  # before the teacher is moved there

    name = f"{name_of(resolved.student.dataset)}-{short_name(resolved.student.model)}-kd"
    common: dict[str, Any] = {"root": root, "download": not offline, "resume": resume, "cache": cache}
    if seeds is not None:
        check_several(seeds, memory)
        _distil_several(name, resolved, Teacher.of_runs(teachers, device=device), seeds, out, memory, common, json=json)
        return
    name = f"{name}-s{resolved.student.seed}"
    folder = out or Path("runs") / name
    with _progress(quiet=json) as (on_stage, on_views):
        done = run_distillation(
            resolved,
            Teacher.of_runs(teachers, device=device),
            folder,
            **common,
            on_stage=on_stage,
            on_views=on_views,
        )
    if json:
        print_json({"folder": str(done.folder), **done.measures.as_json()})
        return
    print_table(f"{name}: test images", COLUMNS, _rows(done.measures), caption=CAPTION)
    say(f"Everything is in {done.folder}; the distilled student is {done.final.folder}")


def _distil_several(
    name: str,
    first: "DistillationConfig",
    teacher: "Teacher",
    seeds: int,
    out: Path | None,
    memory: float,
    common: dict[str, Any],
    *,
    json: bool,
) -> None:
    """Distil students with `seeds` seeds from that of the first one on, together if they can be stacked."""
    from qvit.distill import AskedStudent, Distillation, distill_many
    from qvit.distill import distill as run_distillation

    reason = unstackable_of(first.student, common["root"], download=common["download"])
    numbers = range(first.student.seed, first.student.seed + seeds)
    asked = [
        AskedStudent(
            replace(first, student=replace(first.student, seed=seed, stacked=reason is None)),
            Path("runs") / f"{name}-s{seed}" if out is None else out / f"s{seed}",
        )
        for seed in numbers
    ]
    done: list[Any] = []
    if reason is not None:
        say(f"These students are distilled one after the other: {reason}.")
        for one in asked:
            with _progress(quiet=json) as (on_stage, on_views):
                told: dict[str, Any] = {"on_stage": on_stage, "on_views": on_views}
                done.append(run_distillation(one.config, teacher, one.folder, **common, **told))
    else:
        with _progress(quiet=json, several=True) as (on_stage, on_views):
            told = {"on_stage": on_stage, "on_views": on_views}
            done += distill_many(asked, teacher, **common, memory=memory, **told)
    whole = [one for one in done if isinstance(one, Distillation)]
    runs = [one.runs[stage] for stage in first.stages for one in whole]
    ended = {f"seed {seed}": one for seed, one in zip(numbers, done, strict=True)}
    conclude(ended, runs, [one.folder for one in asked], json=json)


def _teachers(named: list[Path] | None, configured: Any) -> list[Path]:
    from qvit.errors import ConfigError

    if named:
        return named
    paths = [configured] if isinstance(configured, str) else configured or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"teacher must be the folder of a trained run, or a list of them, got {configured!r}.")
    return [expanded(path) for path in paths]


@contextmanager
def _progress(*, quiet: bool, several: bool = False) -> Iterator[tuple[OnStage, OnViews | None]]:
    """Yield callbacks that show one stage after another on stderr, of `several` students how far the furthest is."""
    with ExitStack() as shown:
        told: list[int] = []

        def on_stage(stage: str, epochs: int) -> Any:
            shown.close()
            return shown.enter_context((furthest_progress if several else epoch_progress)(stage, epochs, quiet=quiet))

        def on_views(_done: int, total: int) -> None:
            if not told:
                say(f"Asking the teacher about {total:,} views of images, once for all students …")
            told.append(total)

        yield on_stage, None if quiet else on_views


def _rows(measures: "Measures") -> list[list[str]]:
    teacher, student = measures.teacher, measures.student
    rows = [[f"teacher: {teacher.name}", *_cost(teacher), *_figures(measures.taught)]]
    for stage, figures in measures.test.items():
        rows.append([f"{student.name}: {stage}", *_cost(student), *_figures(figures)])
    return rows


def _cost(network: "Network") -> list[str]:
    from qvit.models.cost import si

    return [f"{network.parameters:,}", "–" if network.flops is None else si(network.flops)]


def _figures(figures: Mapping[str, float | None]) -> list[str]:
    names = ("auc", "acc", "ece", "agreement", "divergence")
    shares = (figures.get("auc_gap_closed"), figures.get("acc_gap_closed"))
    return [
        *(f"{figures[name]:.3f}" if name in figures else "" for name in names),
        *("" if share is None else f"{share:.0%}" for share in shares),
    ]
