"""Read a study from its file: YAML that says datasets × models × regimes × seeds, expanded into runs.

    title: What the entangling gates are worth
    datasets: [retinamnist, breastmnist]
    models:
      - {kind: [qvit, vit_matched], qubits: [4, 8], heads: 2, layers: [1, 2]}
      - cosine_4q2h
      - {kind: [qvit, cosine], recipe: small-features}
    seeds: 5
    options: {epochs: 100}
    teachers:
      strong:
        - {arch: resnet18, width: 0.5, seeds: 5}
    regimes:
      scratch:
      kd: {teacher: strong, temperature: 2.0}
    overrides:
      - {where: {dataset: breastmnist, model: "qvit_*"}, set: {lr: 0.003}}

Only `datasets` and `models` are needed. Plain baselines join the models, unless it says `baselines: never`.
Every option of `qvit train` may stand under `options`, `set` and a model's `options`, those of `qvit distill` in a
regime too, those of `qvit teacher` in a teacher.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from qvit.data.options import IMPORT_KEYS
from qvit.data.registry import get_info, is_path, name_of
from qvit.distill.options import teacher_options
from qvit.documents import LARGEST_YAML, parse_yaml
from qvit.errors import ConfigError, FileError, ModelError, QvitError, nearest
from qvit.files import expanded, read_text
from qvit.models.baselines import BASELINES
from qvit.models.zoo import KINDS, model_config, parse_name
from qvit.study import grid, values
from qvit.study.spec import SCRATCH, Job, Study, StudyModel
from qvit.training.options import OF_BASELINES, TRAIN_KEYS, model_keys

KEYS = ("title", "description", "datasets", "models", "baselines", "seeds", "options", "teachers", "regimes",
        "overrides", "stack")  # fmt: skip
STACK = BASELINES_ARE = ("auto", "never")
DEFAULT_BASELINES = "auto"  # a comparison without them misleads
WHERE_KEYS = ("dataset", "model", "regime", "seed", "teacher")
OF_DATA = ("size", "task", *IMPORT_KEYS)  # that a dataset may set for all of its runs, its teachers among them
OF_MODELS = ("n_layers",)  # set by `layers` of a model, as sizes of models are compared
MOST_OVERRIDES = 200  # each of which is compared with every run


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with the package."""
    folder = files("qvit.study") / "shipped"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_study(path: str | Path) -> Study:
    """Return the study in a YAML file, or a shipped one by name; raises `ConfigError` that says what is wrong.

    Paths of datasets and recipes in a file are relative to its folder.
    """
    path, shipped = Path(path), shipped_studies()
    if str(path) in shipped and not path.is_file():
        path = Path(str(files("qvit.study") / "shipped" / f"{path}.yaml"))
    try:
        text = read_text(path, most=LARGEST_YAML)
    except FileError as error:
        told = str(error)
        if error.missing:
            told = f"Cannot read the study {path}: there is no such file.{nearest(path, shipped)}"
        raise ConfigError(f"{told} Name a YAML file or one of: {', '.join(shipped)}.") from error
    return parse_study(text, name=path.stem, folder=path.parent)


def parse_study(text: str, *, name: str, folder: Path | None = None) -> Study:
    """Return the study that a YAML text describes; arguments and errors as for `read_study`."""
    try:
        said = parse_yaml(text, f"The study {name}")
    except FileError as error:
        raise ConfigError(str(error)) from error
    try:
        return _Parser(name, text, folder or Path()).parse(said)
    except QvitError as error:
        raise ConfigError(f"Study {name}: {error}") from error


@dataclass
class _Parser:
    name: str
    text: str
    folder: Path

    def parse(self, said: Any) -> Study:
        said = values.mapping(said, "a study", KEYS)
        described = [self._described(d) for d in values.several(said.get("datasets"), "datasets")]
        datasets = [name for name, _ in described]
        for name, number in Counter(name_of(name) for name in datasets).items():
            if number > 1:
                raise ConfigError(f"Two datasets are called '{name}'; rename a file.")
        models = grid.models_of(said.get("models"), self.folder)
        plain = self._baselines(said.get("baselines", DEFAULT_BASELINES), models)
        seeds = values.seeds(said.get("seeds", 1), "seeds")
        common = values.options(said.get("options"), "options", *OF_MODELS)
        teachers = {
            str(key): _teacher(key, members, datasets, self._dataset)
            for key, members in values.mapping(said.get("teachers"), "teachers", empty=True).items()
        }
        regimes = _regimes(said.get("regimes"), teachers, self._dataset)
        given = said.get("overrides")
        entries = values.several(given, "overrides", empty=True, most=MOST_OVERRIDES)
        overrides = [_override(entry, self._dataset) for entry in entries]
        runs = len(datasets) * (len(models) * len(regimes) + len(plain)) * len(seeds)
        values.check_number(runs, "runs", values.MOST_RUNS)
        stack = said.get("stack", "auto")
        if stack not in STACK:
            raise ConfigError(f"stack must be {' or '.join(STACK)}, got {stack!r:.80}.")
        jobs = _jobs(dict(described), models, plain, seeds, common, teachers, regimes, overrides)
        if stack == "auto":
            jobs = [_stacked(job) for job in jobs]
        _check_options(jobs)
        _check_data(jobs)
        for where, _ in overrides:
            if not any(_matches(where, job) for job in jobs):
                raise ConfigError(f"No run fits the override where {where}; check its names.")
        return Study(
            name=self.name,
            title=values.line(said.get("title", self.name), "title"),
            description=values.line(said["description"], "description") if said.get("description") is not None else "",
            datasets=tuple(datasets),
            models=(*models, *plain),
            regimes=tuple(regimes),
            seeds=tuple(seeds),
            jobs=tuple(jobs),
            text=self.text,
        )

    def _baselines(self, said: Any, models: Sequence[StudyModel]) -> list[StudyModel]:
        if said not in BASELINES_ARE:
            raise ConfigError(f"baselines must be {' or '.join(BASELINES_ARE)}, got {said!r:.80}.")
        return [] if said == "never" else grid.baselines_of(models)

    def _described(self, said: Any) -> tuple[str, dict[str, Any]]:
        """Return a dataset's name or path, and the options that all of its runs take."""
        if not isinstance(said, dict):
            return self._dataset(said), {}
        said = values.mapping(said, "a dataset", ("path", *OF_DATA))
        return self._dataset(said.pop("path", None)), said

    def _dataset(self, name: Any) -> str:
        if not isinstance(name, str):
            raise ConfigError(f"datasets must be names, or paths of files and folders, got {name!r}.")
        if not is_path(name):
            return get_info(name).name
        path = expanded(name)
        return str(self.folder.resolve() / path)  # a link is not resolved: the study uses its own name


def _check_options(jobs: Iterable[Job]) -> None:
    """Refuse options that a run does not take; runs that differ only in dataset and seed are checked once."""
    seen = set()
    for job in jobs:
        key = repr((job.role, sorted((k, v) for k, v in job.options.items() if k not in ("dataset", "seed"))))
        if key in seen:
            continue
        seen.add(key)
        run = job.run
        if run.held_out is not None:
            raise ConfigError(
                f"{job.name}: a study compares runs on test images, which a run of a fold never sees. Leave folds and "
                "fold out; for folds use `qvit train DATASET --folds 5`."
            )
        try:
            model_config(run.model, img_size=run.size, **run.model_options)
        except ModelError:
            pass  # whether sizes fit together depends on the images, which are not known yet
        except ConfigError as error:
            raise ConfigError(f"{job.name}: {error}") from error


def _check_data(jobs: Iterable[Job]) -> None:
    """Refuse runs on one dataset at several sizes, or imported in several ways: their test images would differ."""
    ways: dict[str, set[Any]] = {}
    for job in jobs:
        run = job.run
        ways.setdefault(job.dataset, set()).add((run.size, run.task, run.importing))
    for dataset, found in ways.items():
        if len(found) > 1:
            raise ConfigError(
                f"Runs on {name_of(dataset)} differ in size, task or import, teachers among them; "
                "give all of them the same, or make another study."
            )


@dataclass(frozen=True)
class _Member:
    """One run of a teacher on each of its datasets."""

    model: StudyModel
    seed: int
    options: dict[str, Any]
    datasets: tuple[str, ...]


def _teacher(name: str, members: Any, datasets: list[str], known: Callable[[Any], str]) -> list[_Member]:
    entries = []
    for entry in values.several(members, f"teacher {name}"):
        said = values.mapping(entry, f"a member of teacher {name}")
        chosen = [
            known(dataset) for dataset in values.several(said.pop("datasets", datasets), f"datasets of teacher {name}")
        ]
        for dataset in chosen:
            if dataset not in datasets:
                raise ConfigError(f"Teacher {name} is for {dataset}, which is not among the study's datasets.")
        seeds = values.seeds(said.pop("seeds", 1), f"seeds of teacher {name}")
        arch = values.line(said.pop("arch", "resnet18"), f"arch of teacher {name}")
        entries.append((arch, values.options(said, f"teacher {name}"), seeds, chosen))
        values.check_number(sum(len(entry[2]) for entry in entries), f"runs of teacher {name}", grid.MOST_MODELS)
    found: list[_Member] = []
    for arch, own, seeds, chosen in entries:
        options = teacher_options(arch) | own
        alike = [one for one in entries if one[0] == arch and set(one[3]) & set(chosen)]
        model = grid.model_named(options["model"], {}, grid.told(arch, own) if len(alike) > 1 else None)
        for seed in seeds:
            twins = [one for one in found if one.model.label == model.label and one.seed == seed]
            if any(set(twin.datasets) & set(chosen) for twin in twins):
                raise ConfigError(f"Teacher {name} names {model.label} with seed {seed} twice.")
            found.append(_Member(model, seed, options, tuple(chosen)))
    return found


def _regimes(
    said: Any, teachers: dict[str, list[_Member]], known: Callable[[Any], str]
) -> dict[str, tuple[str | None, dict[str, Any]]]:
    """Return for each regime the name of its teacher, if it has one, and its options."""
    if isinstance(said, list):
        said = dict.fromkeys(values.line(name, "a regime") for name in values.several(said, "regimes"))
    regimes: dict[str, tuple[str | None, dict[str, Any]]] = {}
    for name, own in (values.mapping(said, "regimes", empty=True) or {SCRATCH: None}).items():
        options = _located(values.options(own, f"regime {name}", *OF_MODELS), known)
        teacher = None if options.get("teacher") is None else str(options["teacher"])
        options.pop("teacher", None)
        if teacher is not None and teacher not in teachers:
            raise ConfigError(
                f"Regime {name} learns from '{teacher}', which is not among the teachers "
                f"({', '.join(teachers) or 'there are none'}).{nearest(teacher, teachers)}"
            )
        if teacher is None and name != SCRATCH:
            raise ConfigError(f"Regime {name} needs a teacher; only '{SCRATCH}' has none.")
        if teacher is not None and name == SCRATCH:
            raise ConfigError(f"The regime '{SCRATCH}' has no teacher; give this one another name.")
        regimes[name] = teacher, options
    return regimes


def _located(options: dict[str, Any], known: Callable[[Any], str]) -> dict[str, Any]:
    """Return options in which the transfer set, if there is one, has its full path, as datasets have."""
    if options.get("transfer_set") is None:
        return options
    return options | {"transfer_set": known(options["transfer_set"])}


Override = tuple[dict[str, list[str]], dict[str, Any]]


def _override(entry: Any, known: Callable[[Any], str]) -> Override:
    said = values.mapping(entry, "an override", ("where", "set"))
    where = values.mapping(said.get("where"), "where", WHERE_KEYS)
    chosen = {key: [str(value) for value in values.several(given, f"where {key}")] for key, given in where.items()}
    if not chosen or not said.get("set"):
        raise ConfigError("An override has a `where` that names runs and a `set` of options.")
    return chosen, _located(values.options(said["set"], "set", *OF_MODELS), known)


def _matches(where: dict[str, list[str]], job: Job) -> bool:
    """Return whether an override applies to a job; one that names no teacher applies to students."""
    teacher = job.role == "teacher"
    if teacher != ("teacher" in where):
        return False
    has = {
        "dataset": name_of(job.dataset),
        "model": job.model.label,
        "seed": str(job.seed),
        "teacher" if teacher else "regime": job.regime,
    }
    return all(any(fnmatchcase(has.get(key, ""), pattern) for pattern in where[key]) for key in where)


def _overridden(job: Job, overrides: Iterable[Override]) -> Job:
    options = job.options
    for where, changes in overrides:
        if _matches(where, job):
            options = options | changes
    return replace(job, options=options)


def _stacked(job: Job) -> Job:
    """Return the job as one of a stack, where its model has others like it, and unless it says what it wants."""
    found = parse_name(job.model.name)
    plain = job.role == "student" and found is not None and found.kind in KINDS
    if not plain or job.options.get("dropout") or "stacked" in job.options:
        return job
    return replace(job, options=job.options | {"stacked": True})


def _jobs(
    datasets: Mapping[str, dict[str, Any]],
    models: Sequence[StudyModel],
    plain: Sequence[StudyModel],
    seeds: Sequence[int],
    common: dict[str, Any],
    teachers: dict[str, list[_Member]],
    regimes: dict[str, tuple[str | None, dict[str, Any]]],
    overrides: Sequence[Override],
) -> list[Job]:
    """Return all runs, one seed after another, so that an unfinished study is useful, with teachers before students.

    `plain` are the baselines that the study is given: from scratch alone, with those of its options that they take.
    """
    jobs: list[Job] = []
    for dataset, of_data in datasets.items():
        taught_by: dict[str, tuple[Job, ...]] = {}
        for teacher in dict.fromkeys(name for name, _ in regimes.values() if name is not None):
            members = [member for member in teachers[teacher] if dataset in member.datasets]
            if not members:
                raise ConfigError(f"Teacher {teacher} has no member for {dataset}.")
            taught_by[teacher] = tuple(
                _overridden(
                    Job("teacher", dataset, m.model, teacher, m.seed, options | {"dataset": dataset, "seed": m.seed}),
                    overrides,
                )
                for m, options in ((m, of_data | m.options) for m in members)
            )
            jobs += taught_by[teacher]
        scratch = SCRATCH, regimes.get(SCRATCH, (None, {}))
        wanted = [*product(regimes.items(), models), *((scratch, model) for model in plain)]
        for seed, ((regime, (teacher, own)), model) in product(seeds, wanted):
            options = of_data | common | model.options | own
            options |= {"dataset": dataset, "model": model.name, "seed": seed}
            if teacher is not None:
                options |= {"scratch": False}
            taught = () if teacher is None else taught_by[teacher]
            job = _overridden(Job("student", dataset, model, regime, seed, options, taught), overrides)
            jobs.append(_as_taken(job, given=model in plain))
    return jobs


def _as_taken(job: Job, *, given: bool) -> Job:
    """Return a job without options for other models than its own, if that is a baseline, or `given` to the study.

    Options that stand at the model itself are kept, so that they are refused if it does not take them.
    """
    model, others = job.model, set[str]()
    if model.name in BASELINES:
        others |= {*TRAIN_KEYS} - {*OF_BASELINES} | {"stacked"}
    if given:
        others |= {"stacked"} | ({*model_keys()} if model.qubits is None else set())
    others -= model.options.keys()
    kept = {key: value for key, value in job.options.items() if key not in others}
    return job if not others else replace(job, options=kept)
