"""What a study is: a YAML file that says datasets × models × regimes × seeds, and the runs that this means.

    title: What the entangling gates are worth
    datasets: [retinamnist, breastmnist]
    models:
      - {kind: [qvit, vit_matched], qubits: [4, 8], heads: 2, layers: [1, 2]}
      - cosine_4q2h
    seeds: 5
    options: {epochs: 100}
    teachers:
      strong:
        - {arch: resnet18, width: 32, seeds: 5}
    regimes:
      scratch:
      kd: {teacher: strong, temperature: 2.0}
    overrides:
      - {where: {dataset: breastmnist, model: "qvit_*"}, set: {lr: 0.003}}

Only `datasets` and `models` are needed. Every option of `qvit train` may stand under `options`, `set` and a model's
`options`, those of `qvit distill` in a regime too, those of `qvit teacher` in a teacher.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, Literal

from qvit.data.registry import get_info, is_path
from qvit.distill.options import resolve_distillation, teacher_options
from qvit.documents import LARGEST_YAML, parse_yaml
from qvit.errors import ConfigError, FileError, ModelError, QvitError, nearest, printable
from qvit.files import expanded, read_text
from qvit.models.projections import PROJECTIONS
from qvit.models.zoo import KINDS, model_config
from qvit.training.options import LARGEST_SEED, RunConfig, resolve

SCRATCH = "scratch"
MATCHED = "_matched"
KEYS = ("title", "description", "datasets", "models", "seeds", "options", "teachers", "regimes", "overrides")
MODEL_KEYS = ("name", "kind", "qubits", "heads", "layers", "label", "options")
WHERE_KEYS = ("dataset", "model", "regime", "seed", "teacher")
GIVEN = ("dataset", "model", "student", "seed", "scratch")  # by the study, never by options
OF_MODELS = ("n_layers",)  # said by the models, whose sizes are compared: by `layers`
MOST_RUNS = 20_000  # of a study: to plan more and tell of them takes minutes
MOST_SEEDS = 10_000
MOST_MODELS = 1000  # or runs of a teacher; each is built once, without its numbers, to check its options
MOST_OVERRIDES = 200  # each of which is compared with every run
_NAME = re.compile(r"(?P<kind>[a-z_]+)_(?P<qubits>[0-9]{1,9})q(?P<heads>[0-9]{1,9})h(?P<matched>_matched)?")


@dataclass(frozen=True)
class StudyModel:
    """One model of a study: its name in `models.zoo`, options of its own, and how tables call it.

    `kind`, `qubits`, `heads` and `layers` are what its name says; the last three are None for networks without them.
    """

    label: str
    name: str
    kind: str
    qubits: int | None = None
    heads: int | None = None
    layers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One thing to train: a student from scratch, one that learns from `teachers` first, or a teacher.

    `regime` is "scratch", a regime's name, or for a teacher the name of the teacher it belongs to; `options` are flat,
    as `qvit train` or, with teachers, `qvit distill` takes them.
    """

    role: Literal["student", "teacher"]
    dataset: str
    model: StudyModel
    regime: str
    seed: int
    options: dict[str, Any]
    teachers: tuple["Job", ...] = ()

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{Path(self.dataset).stem} {self.model.label} {self.regime} seed {self.seed}"

    def resolved(self) -> Any:
        """Return the validated `RunConfig`, or with teachers the `DistillationConfig`; `ConfigError` names the job."""
        return self._resolved

    @property
    def run(self) -> RunConfig:
        """The configuration of the run, of a distillation that of its student."""
        config = self.resolved()
        return config if isinstance(config, RunConfig) else config.student

    @cached_property
    def _resolved(self) -> Any:
        try:
            return resolve_distillation(self.options) if self.teachers else resolve(self.options)
        except QvitError as error:
            raise ConfigError(f"{self.name}: {error}") from error


@dataclass(frozen=True)
class Study:
    """A validated study; `jobs` is what it comes to, teachers before those who learn from them."""

    name: str
    title: str
    description: str
    datasets: tuple[str, ...]
    models: tuple[StudyModel, ...]
    regimes: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]
    text: str  # the file as it was


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with the package."""
    folder = files("qvit.study") / "shipped"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_study(path: str | Path) -> Study:
    """Return the study of a YAML file, or of the name of a shipped one; raises `ConfigError` that says what is wrong.

    Paths of datasets in a file are relative to its folder.
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


def restrict(study: Study, *, datasets: Sequence[str] | None = None, seeds: int | None = None) -> Study:
    """Return a study of some of its datasets, named as in it or by their files' names, and its first `seeds` seeds.

    Raises `ConfigError` for a dataset that is not among them, or more seeds than there are.
    """
    names = {Path(dataset).stem: dataset for dataset in study.datasets}
    for name in datasets or ():
        if Path(name).stem not in names:
            raise ConfigError(
                f"The study {study.name} has no dataset '{name}'.{nearest(name, names)} It has: {', '.join(names)}."
            )
    if seeds is not None and not 1 <= seeds <= len(study.seeds):
        raise ConfigError(
            f"The study {study.name} has {len(study.seeds)} seeds, so --seeds takes 1 to that, not {seeds}."
        )
    chosen = tuple(names[Path(name).stem] for name in datasets) if datasets else study.datasets
    kept = study.seeds[:seeds]
    jobs = tuple(job for job in study.jobs if job.dataset in chosen and (job.role == "teacher" or job.seed in kept))
    return replace(study, datasets=tuple(d for d in study.datasets if d in chosen), seeds=kept, jobs=jobs)


@dataclass
class _Parser:
    name: str
    text: str
    folder: Path

    def parse(self, said: Any) -> Study:
        said = _mapping(said, "a study", KEYS)
        datasets = [self._dataset(d) for d in _several(said.get("datasets"), "datasets")]
        for name, number in Counter(Path(name).stem for name in datasets).items():
            if number > 1:
                raise ConfigError(f"Two datasets are called '{name}'; rename a file.")
        models = _all_models(said.get("models"))
        seeds = _seeds(said.get("seeds", 1), "seeds")
        common = _options(said.get("options"), "options", *OF_MODELS)
        teachers = {
            str(key): _teacher(key, members, datasets, self._dataset)
            for key, members in _mapping(said.get("teachers"), "teachers", empty=True).items()
        }
        regimes = _regimes(said.get("regimes"), teachers, self._dataset)
        given = said.get("overrides")
        entries = _several(given, "overrides", empty=True, most=MOST_OVERRIDES)
        overrides = [_override(entry, self._dataset) for entry in entries]
        _check_number(len(datasets) * len(models) * len(regimes) * len(seeds), "runs", MOST_RUNS)
        jobs = _jobs(datasets, models, seeds, common, teachers, regimes, overrides)
        _check_options(jobs)
        _check_sizes(jobs)
        for where, _ in overrides:
            if not any(_matches(where, job) for job in jobs):
                raise ConfigError(f"No run fits the override where {where}; check its names.")
        return Study(
            name=self.name,
            title=_line(said.get("title", self.name), "title"),
            description=_line(said["description"], "description") if said.get("description") is not None else "",
            datasets=tuple(datasets),
            models=tuple(models),
            regimes=tuple(regimes),
            seeds=tuple(seeds),
            jobs=tuple(jobs),
            text=self.text,
        )

    def _dataset(self, name: Any) -> str:
        if not isinstance(name, str):
            raise ConfigError(f"datasets must be names or paths of .npz files, got {name!r}.")
        if not is_path(name):
            return get_info(name).name
        path = expanded(name)
        return str(self.folder.resolve() / path)  # a link keeps its own name, by which the study calls it


def _check_options(jobs: Iterable[Job]) -> None:
    """Refuse options that no run takes, once for all runs that differ in dataset and seed alone."""
    seen = set()
    for job in jobs:
        key = repr((job.role, sorted((k, v) for k, v in job.options.items() if k not in ("dataset", "seed"))))
        if key in seen:
            continue
        seen.add(key)
        run = job.run
        try:
            model_config(run.model, img_size=run.size, **run.model_options)
        except ModelError:
            pass  # whether sizes fit together depends on the images, which are not known yet
        except ConfigError as error:
            raise ConfigError(f"{job.name}: {error}") from error


def _check_sizes(jobs: Iterable[Job]) -> None:
    """Refuse runs on one dataset at several sizes: their test images are others, and no test compares them."""
    sizes: dict[str, set[Any]] = {}
    for job in jobs:
        sizes.setdefault(job.dataset, set()).add((job.options.get("size", 28), job.options.get("task")))
    for dataset, found in sizes.items():
        if len(found) > 1:
            raise ConfigError(
                f"Runs on {Path(dataset).stem} differ in size or task, teachers among them; "
                "give all of them the same, or make another study."
            )


def _mapping(said: Any, what: str, known: Sequence[str] = (), *, empty: bool = False) -> dict[str, Any]:
    """Return a mapping of known keys; where it may be `empty`, nothing is one too."""
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


def _several(said: Any, what: str, *, empty: bool = False, most: int = MOST_RUNS) -> list[Any]:
    """Return a list, of at least one thing unless it may be `empty`; a single one need not be in a list."""
    items = said if isinstance(said, list) else [] if said is None else [said]
    if not items and not empty:
        raise ConfigError(f"{what} must name at least one.")
    _check_number(len(items), what, most)
    for item, number in Counter(map(repr, items)).items():
        if number > 1:
            raise ConfigError(f"{what} names {item} twice.")
    return items


def _check_number(number: int, what: str, most: int) -> None:
    if number > most:
        raise ConfigError(f"{what} must be at most {most:,} in number, got {number:,}; make several studies of it.")


def _line(said: Any, what: str) -> str:
    if not isinstance(said, str) or not said.strip():
        raise ConfigError(f"{what} must be text, got {said!r}.")
    return printable(" ".join(said.split()))


def _whole(said: Any, what: str, *, least: int) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or said < least:
        raise ConfigError(f"{what} must be whole numbers of at least {least}, got {said!r}.")
    return said


def _seeds(said: Any, what: str) -> list[int]:
    """Return seeds: 5 means 0 to 4."""
    if isinstance(said, list):
        found = [_whole(seed, what, least=0) for seed in _several(said, what, most=MOST_SEEDS)]
        if max(found) > LARGEST_SEED:
            raise ConfigError(f"{what} must be at most {LARGEST_SEED}, got {max(found)}.")
        return found
    _check_number(_whole(said, what, least=1), what, MOST_SEEDS)
    return list(range(said))


def _options(said: Any, what: str, *elsewhere: str) -> dict[str, Any]:
    options = _mapping(said, what, empty=True)
    for key in (*GIVEN, *elsewhere):
        if key in options:
            raise ConfigError(f"{what} cannot set '{key}': the study's datasets, models, seeds and regimes do.")
    return options


def _all_models(said: Any) -> list[StudyModel]:
    models: list[StudyModel] = []
    for entry in _several(said, "models", most=MOST_MODELS):
        models += _models(entry)
        _check_number(len(models), "models", MOST_MODELS)
    for label, number in Counter(model.label for model in models).items():
        if number > 1:
            raise ConfigError(f"models names {label!r} twice; give one a label.")
    return models


def _models(entry: Any) -> list[StudyModel]:
    """Return the models of an entry: a name, or a grid of kind × qubits × heads × layers."""
    if isinstance(entry, str):
        return [_model(entry, {}, None)]
    said = _mapping(entry, "an entry of models", MODEL_KEYS)
    options, label = _options(said.get("options"), "a model's options"), said.get("label")
    layers = [_whole(n, "layers", least=1) for n in _several(said.get("layers", 1), "layers")]
    if ("name" in said) == ("kind" in said):
        raise ConfigError(f"An entry of models has either a name or a kind, got {entry!r}.")
    if "layers" in said and "n_layers" in options:
        raise ConfigError(f"An entry of models has either layers or the option n_layers, got {entry!r}.")
    if "name" in said:
        if {"qubits", "heads"} & said.keys():
            raise ConfigError(f"The name {said['name']!r} says its qubits and heads; leave them out, or use kind.")
        names = [_line(name, "name") for name in _several(said["name"], "name", most=MOST_MODELS)]
    else:
        kinds = [_line(kind, "kind") for kind in _several(said["kind"], "kind")]
        for kind in kinds:
            if kind.removesuffix(MATCHED) not in KINDS:
                raise ConfigError(f"There is no kind '{kind}'.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}.")
        heads = [_whole(n, "heads", least=1) for n in _several(said.get("heads", 2), "heads")]
        qubits = [_whole(n, "qubits", least=1) for n in _several(said.get("qubits", 4), "qubits")]
        _check_number(len(kinds) * len(heads) * len(qubits) * len(layers), "models", MOST_MODELS)
        names = [
            f"{kind.removesuffix(MATCHED)}_{q}q{h}h{MATCHED * kind.endswith(MATCHED)}"
            for h, q, kind in product(heads, qubits, kinds)
        ]
    grid = [(name, n) for n in layers for name in names if n == layers[0] or _takes_layers(name)]
    if label is not None and len(grid) > 1:
        raise ConfigError(f"The label {label!r} would be that of {len(grid)} models; give each an entry of its own.")
    deep = {name for name in names if _takes_layers(name)}
    return [_model(name, options | {"n_layers": n} if n > 1 and name in deep else options, label) for name, n in grid]


def _takes_layers(name: str) -> bool:
    found = _NAME.fullmatch(name)
    if found is None or found["kind"] not in KINDS:
        return False
    # A matched model has the parameters of a QViT, and that has layers.
    return bool(found["matched"]) or "n_layers" in PROJECTIONS[KINDS[found["kind"]]].__dataclass_fields__


def _model(name: str, options: dict[str, Any], label: Any) -> StudyModel:
    found = _NAME.fullmatch(name)
    label = _told(name, options) if label is None else label
    if found is None:
        return StudyModel(_line(label, "label"), name, name, options=options)
    layers = _whole(options.get("n_layers", 1), "n_layers", least=1) if _takes_layers(name) else None
    kind = found["kind"] + (found["matched"] or "")
    return StudyModel(
        _line(label, "label"), name, kind, int(found["qubits"]), int(found["heads"]), layers, options=options
    )


def _told(name: str, options: dict[str, Any]) -> str:
    told = [f"{value} layers" if key == "n_layers" else f"{key}={value}" for key, value in options.items()]
    return f"{name} ({', '.join(told)})" if told else name


@dataclass(frozen=True)
class _Member:
    """One run of a teacher on each of its datasets."""

    model: StudyModel
    seed: int
    options: dict[str, Any]
    datasets: tuple[str, ...]


def _teacher(name: str, members: Any, datasets: list[str], known: Callable[[Any], str]) -> list[_Member]:
    entries = []
    for entry in _several(members, f"teacher {name}"):
        said = _mapping(entry, f"a member of teacher {name}")
        chosen = [known(dataset) for dataset in _several(said.pop("datasets", datasets), f"datasets of teacher {name}")]
        for dataset in chosen:
            if dataset not in datasets:
                raise ConfigError(f"Teacher {name} is for {dataset}, which is not among the study's datasets.")
        seeds = _seeds(said.pop("seeds", 1), f"seeds of teacher {name}")
        arch = _line(said.pop("arch", "resnet18"), f"arch of teacher {name}")
        entries.append((arch, _options(said, f"teacher {name}"), seeds, chosen))
        _check_number(sum(len(entry[2]) for entry in entries), f"runs of teacher {name}", MOST_MODELS)
    found: list[_Member] = []
    for arch, own, seeds, chosen in entries:
        options = teacher_options(arch) | own
        alike = [one for one in entries if one[0] == arch and set(one[3]) & set(chosen)]
        model = _model(options["model"], {}, _told(arch, own) if len(alike) > 1 else None)
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
        said = dict.fromkeys(_line(name, "a regime") for name in _several(said, "regimes"))
    regimes: dict[str, tuple[str | None, dict[str, Any]]] = {}
    for name, own in (_mapping(said, "regimes", empty=True) or {SCRATCH: None}).items():
        options = _located(_options(own, f"regime {name}", *OF_MODELS), known)
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
            raise ConfigError(f"The regime '{SCRATCH}' has no teacher; call this one otherwise.")
        regimes[name] = teacher, options
    return regimes


def _located(options: dict[str, Any], known: Callable[[Any], str]) -> dict[str, Any]:
    """Return options with the place of the transfer set, if they name one, as datasets are named."""
    if options.get("transfer_set") is None:
        return options
    return options | {"transfer_set": known(options["transfer_set"])}


Override = tuple[dict[str, list[str]], dict[str, Any]]


def _override(entry: Any, known: Callable[[Any], str]) -> Override:
    said = _mapping(entry, "an override", ("where", "set"))
    where = _mapping(said.get("where"), "where", WHERE_KEYS)
    chosen = {key: [str(value) for value in _several(values, f"where {key}")] for key, values in where.items()}
    if not chosen or not said.get("set"):
        raise ConfigError("An override has a `where` that names runs and a `set` of options.")
    return chosen, _located(_options(said["set"], "set", *OF_MODELS), known)


def _matches(where: dict[str, list[str]], job: Job) -> bool:
    """Return whether an override is about a job; one that names no teacher is about students."""
    teacher = job.role == "teacher"
    if teacher != ("teacher" in where):
        return False
    has = {
        "dataset": Path(job.dataset).stem,
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


def _jobs(
    datasets: Sequence[str],
    models: Sequence[StudyModel],
    seeds: Sequence[int],
    common: dict[str, Any],
    teachers: dict[str, list[_Member]],
    regimes: dict[str, tuple[str | None, dict[str, Any]]],
    overrides: Sequence[Override],
) -> list[Job]:
    """Return all runs: seed after seed, so that an unfinished study can be read, and teachers when they are needed."""
    jobs: list[Job] = []
    for dataset in datasets:
        taught_by: dict[str, tuple[Job, ...]] = {}
        for teacher in dict.fromkeys(name for name, _ in regimes.values() if name is not None):
            members = [member for member in teachers[teacher] if dataset in member.datasets]
            if not members:
                raise ConfigError(f"Teacher {teacher} has no member for {dataset}.")
            taught_by[teacher] = tuple(
                _overridden(
                    Job("teacher", dataset, m.model, teacher, m.seed, m.options | {"dataset": dataset, "seed": m.seed}),
                    overrides,
                )
                for m in members
            )
            jobs += taught_by[teacher]
        for seed, (regime, (teacher, own)), model in product(seeds, regimes.items(), models):
            options = common | model.options | own
            options |= {"dataset": dataset, "model": model.name, "seed": seed}
            if teacher is not None:
                options |= {"scratch": False}
            taught = () if teacher is None else taught_by[teacher]
            jobs.append(_overridden(Job("student", dataset, model, regime, seed, options, taught), overrides))
    return jobs
