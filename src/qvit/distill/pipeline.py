"""The paper's pipeline: pre-train a student on a teacher's outputs, fine-tune it on labels, and measure the gain.

A distillation is a folder of runs, each a run folder of its own that can be resumed, evaluated and compared:

scratch/    the same student from labels alone      pretrain/   from the teacher alone
finetune/   continues `pretrain`, from labels       joint/      from both at once, instead of the two stages
distillation.json   the measures of all runs, written last
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from qvit.data.arrays import Dataset
from qvit.data.mixtures import mix_images
from qvit.data.transfer import check_disjoint, load_images
from qvit.distill.guide import DistillConfig, TeacherGuide
from qvit.distill.measures import Measures, measures
from qvit.distill.teacher import Teacher
from qvit.distill.teacher_cache import OnViews, cache_folder
from qvit.errors import ConfigError, RunError, nearest
from qvit.evaluation.metrics import evaluate
from qvit.files import PART, printable, shown, write_atomic
from qvit.models.baselines import BASELINES
from qvit.models.zoo import build_without_numbers
from qvit.training.config import TrainConfig
from qvit.training.distributed import assemble
from qvit.training.folder import Run
from qvit.training.losses import make_loss
from qvit.training.machine import check_device
from qvit.training.options import TRAIN_KEYS, RunConfig
from qvit.training.run import OnEpoch, train_run
from qvit.training.surroundings import surroundings
from qvit.validate import validated

Stage = Literal["scratch", "pretrain", "finetune", "joint"]
STAGES: tuple[Stage, ...] = ("scratch", "pretrain", "finetune", "joint")
RESULT = "distillation.json"
# After learning from a teacher, smaller steps are needed to learn from labels; a first guess, never compared.
FINETUNE = {"lr": 1e-3, "epochs": 50}
FEW = 4000  # training images; with fewer, a teacher's outputs say little more than the labels
MOST_MIXTURES = 1_000_000  # images in memory


@dataclass(frozen=True)
class DistillationConfig:
    """What determines a distillation, together with its teacher.

    `student` is the configuration of the run from scratch, `how` says how to learn from the teacher. The first stage
    learns from the teacher alone (α = 1), the second from the labels; `pretrain` and `finetune` replace some of the
    student's training options in their stage. With `joint` there is one stage, with the α of `how`. `transfer_set`
    names other, unlabelled images for the first stage: a dataset or an .npz file. Without it, that stage learns on
    `mixtures` images made from the training images (see `data.mixtures`); 0 takes the training images themselves, and
    None, the default, means `FEW` if there are fewer training images than that, else 0. `scratch` says whether the run
    from scratch is trained too.
    """

    student: RunConfig
    how: DistillConfig = field(default_factory=DistillConfig)
    joint: bool = False
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    transfer_set: str | None = None
    mixtures: int | None = None
    scratch: bool = True

    def __post_init__(self) -> None:
        if self.student.model in BASELINES:
            raise ConfigError(
                f"{self.student.model} is fitted to labels, so it cannot be a student; use a network, such as "
                "qvit_4q2h. It can be a teacher."
            )
        if self.student.held_out is not None:
            raise ConfigError(
                "A student is not trained by folds: its teacher has seen the images that would be held out. "
                "Leave folds and fold out."
            )
        if self.mixtures is not None and not 0 <= self.mixtures <= MOST_MIXTURES:
            expected = "zero or more" if self.mixtures < 0 else f"at most {MOST_MIXTURES:,}"
            raise ConfigError(f"mixtures must be {expected} images, got {self.mixtures}.")
        if self.joint and (self.transfer_set is not None or self.mixtures):
            raise ConfigError(
                "A transfer set and mixtures have no labels, so they cannot be learned from jointly; leave --joint out."
            )
        if self.transfer_set is not None and self.mixtures:
            raise ConfigError("Both a transfer set and mixtures were asked for; use one of them.")
        if self.joint and (self.pretrain or self.finetune):
            raise ConfigError(
                "With --joint there are no stages to pre-train or fine-tune; set the student's options instead."
            )
        if not self.joint and self.how.alpha != 1.0:
            raise ConfigError(
                f"The first of two stages learns from the teacher alone, alpha=1, got {self.how.alpha}; "
                "learn from both at once with --joint."
            )
        for stage in ("pretrain", "finetune"):
            for key in getattr(self, stage):
                if key not in TRAIN_KEYS:
                    raise ConfigError(
                        f"There is no option '{key}' for {stage}.{nearest(str(key), TRAIN_KEYS)} A stage has the "
                        f"options of training: {', '.join(TRAIN_KEYS)}."
                    )
        for stage in self.stages:
            self.of(stage)  # raises for impossible values

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""
        taught: tuple[Stage, ...] = ("joint",) if self.joint else ("pretrain", "finetune")
        return ("scratch", *taught) if self.scratch else taught

    def mixed(self, images: int) -> int:
        """Return how many mixtures the first stage learns on; 0 if it learns on the training `images` themselves."""
        if self.mixtures is not None:
            return self.mixtures
        return FEW if images < FEW and not self.joint else 0

    def of(self, stage: Stage) -> RunConfig:
        """Return the configuration of a stage's run."""
        changes = {"pretrain": self.pretrain, "finetune": FINETUNE | self.finetune}.get(stage, {})
        return replace(self.student, train=validated(TrainConfig, asdict(self.student.train) | changes))


@dataclass(frozen=True)
class Distillation:
    """A finished distillation: its runs by stage, and its measures, which distillation.json holds."""

    folder: Path
    runs: dict[Stage, Run]
    measures: Measures

    @property
    def final(self) -> Run:
        """The run of the distilled student."""
        return self.runs["joint" if "joint" in self.runs else "finetune"]


def distill(
    config: DistillationConfig,
    teacher: Teacher,
    folder: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = True,
    resume: bool = False,
    cache: Path | None = None,
    on_stage: Callable[[Stage, int], OnEpoch | None] | None = None,
    on_views: OnViews | None = None,
) -> Distillation:
    """Distil a teacher into a student, stage after stage, and write run folders into `folder`.

    `resume` goes on with an interrupted distillation, bit for bit as if it had not stopped, and returns a finished one
    as it is. `on_stage(stage, epochs)` returns a function that is called after each epoch of that stage. `cache` is the
    folder of teacher outputs, `on_views(done, all)` is called while they are computed. Mistakes that can be found early
    are found before anything is trained. Raises `ConfigError`, `DataError`, `RunError` and `TrainingError` as
    `train_run` does.
    """
    student, folder = config.student, printable(folder, raised=RunError)
    with surroundings(student.train.threads), assemble(student.train.device) as team:
        data, guide = team.in_turn(
            lambda: load(config, teacher, root=root, download=download, cache=cache, on_views=on_views)
        )
        check(config, guide, data)
        printable(folder, raised=RunError)
        check_folder(folder, config, resume=resume)
        if config.how.alpha:
            check_cache(cache or cache_folder())
        runs: dict[Stage, Run] = {}
        for stage in config.stages:
            of_stage = config.of(stage)
            runs[stage] = train_run(
                of_stage,
                folder / stage,
                root=root,
                download=download,
                resume=resume,
                guide=guide if stage in ("pretrain", "joint") else None,
                origin=runs["pretrain"] if stage == "finetune" else None,
                on_epoch=on_stage(stage, of_stage.train.epochs) if on_stage else None,
            )

        measured = team.lead(lambda: conclude(folder, measures(teacher, runs, data, student.train)))
    return Distillation(folder, runs, measured)


def load(
    config: DistillationConfig, teacher: Teacher, *, root: str | Path | None, download: bool, **told: Any
) -> tuple[Dataset, TeacherGuide]:
    """Return the data of a distillation, and the teacher as a guide on the images of the first stage."""
    student = config.student
    student.check_without_data()
    data = student.load_data(root, download=download)
    return data, _guide(config, teacher, data, root=root, download=download, **told)


def conclude(folder: Path, measured: Measures) -> Measures:
    """Write the measures of a distillation whose runs are all finished."""
    for leftover in folder.glob(f".{RESULT}.*{PART}"):
        leftover.unlink()
    write_atomic(folder / RESULT, (json.dumps(measured.as_json(), indent=2, ensure_ascii=False) + "\n").encode())
    return measured


def _guide(
    config: DistillationConfig,
    teacher: Teacher,
    data: Dataset,
    *,
    root: str | Path | None,
    download: bool,
    cache: Path | None,
    on_views: OnViews | None,
) -> TeacherGuide:
    transfer = None
    mixtures = config.mixed(len(data.train))
    if mixtures and config.transfer_set is None:
        mixed = mix_images(data.train, mixtures)
        transfer = mixed.images, mixed.digest
    if config.transfer_set is not None:
        transfer = load_images(
            config.transfer_set, size=data.size, channels=data.info.channels, root=root, download=download
        )
        check_disjoint(transfer[0], data)
    return TeacherGuide(teacher, config.how, transfer=transfer, cache=cache, on_views=on_views)


def check(config: DistillationConfig, guide: TeacherGuide, data: Dataset) -> None:
    """Refuse now what would otherwise fail after hours of an earlier stage."""
    student = config.student
    guide.check(build_without_numbers(student.architecture(data.info, data.size)), data)
    for stage in config.stages:
        train = config.of(stage).train
        make_loss(data.info.task, name=train.loss)
        check_device(train.device)
    if guide.teacher.runs:  # a module's scores would have to be computed; they are measured only at the end
        evaluate(data.test.labels, guide.teacher.scores(data, "test", student.train), data.info.task)


def check_folder(folder: Path, config: DistillationConfig, *, resume: bool) -> None:
    """Refuse a folder that holds something else, or stages that this distillation does not have."""
    try:
        found = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return  # its first run makes it
    except OSError as error:
        raise RunError(
            f"Cannot use {folder} as a folder of runs: {error.strerror or error}. Choose another with --out."
        ) from error
    strange = sorted(shown(name) for name in found if name not in (*config.stages, RESULT))
    if strange and set(strange) <= set(STAGES):
        raise RunError(
            f"{folder} holds a distillation of other stages ({', '.join(strange)}) than {', '.join(config.stages)}. "
            "Go on with it by the same options, or choose another folder with --out."
        )
    if strange:
        raise RunError(f"{folder} holds other things ({', '.join(strange[:8])}); choose another with --out.")
    if found and not resume:
        raise RunError(
            f"{folder} already holds a {'finished' if RESULT in found else 'started'} distillation. "
            "Go on with it by --resume, or choose another folder with --out."
        )


def check_cache(folder: Path) -> None:
    """Raise `RunError` unless teacher outputs can be kept in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"Cannot use {folder} as a folder of teacher outputs: {error.strerror or error}. "
            "Choose another with --cache."
        ) from error
