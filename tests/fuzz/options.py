"""Options of training, of a teacher and of a distillation: as a file, and as `--set` gives them."""

from pathlib import Path
from random import Random

from fuzz.harness import Kind
from fuzz.yaml_texts import PIECES, mutated
from qvit.distill.options import resolve_distillation, teacher_options
from qvit.training.options import option_keys, parse_assignment, read_options, resolve

# How the lines are read, and what they may hold.
TEXTS = (
    "file\ndataset: phantom\nmodel: qvit_4q2h\nseed: 3\nlr: 0.005\nepochs: 010\nclip_norm: null\nn_layers: 2",
    "file\ndataset: mine.npz\ntask: ordinal\nsize: 64\naugment: d4\ntta: auto\nbatch_size: 16\nwarmup: 0.1",
    "set\ndataset=phantom\nmodel=vit_4q2h_matched\nthreads=2\nweight_decay=1e-2\nlabel_smoothing=0.1\npatience=5",
    "set\ndataset=phantom\npool=cls\ndropout=0.2\ndepth=2\nengine=statevector\nloss=ce\nschedule=constant",
    "teacher\nresnet18\ndataset: phantom\nwidth: 0.5\nstem: imagenet\nprecision: full\npretrained: null",
    "teacher\nvit\ndataset: phantom\nepochs: 3\ndevice: cpu",
    "distill\ndataset: phantom\nstudent: qvit_8q2h\ntemperature: 3\npretrain: {epochs: 3, lr: 0.01}\nmixtures: 100",
    "distill\ndataset: phantom\njoint: true\nalpha: 0.3\nkd_loss: decoupled\nbeta: 1.5\nfeature_weight: 0.1",
    "distill\ndataset: phantom\nscratch: false\nfinetune: {epochs: 5}\ntransfer_set: retinamnist\nepochs: 4",
)
WORDS = (
    *("yes", "no", "1_000", "1:30", ".inf", "1e400", "1e18", "-1", "0", "0.5", "true", "null", "'5'", "[1, 2]"),
    *("{a: b}", "10" * 30, "~", "épochs", "2024-01-01", "a\nb", "~nobody/x.npz", "\x1b[2J", "🦠", "x" * 3000),
)
PIECES_OF_OPTIONS = (
    *PIECES,
    *(word.encode() for word in WORDS),
    *(f"\n{key}: ".encode() for key in (*option_keys(), "teacher", "student", "alpha", "joint", "finetune")),
)


def _valid(random: Random) -> bytes:
    return random.choice(TEXTS).encode()


def _mutate(random: Random, content: bytes) -> bytes:
    return mutated(random, content, PIECES_OF_OPTIONS)


def _attempt(content: bytes, folder: Path) -> None:
    how, _, lines = content.partition(b"\n")
    if how == b"set":
        words = lines.decode(errors="surrogateescape").split("\n")  # as arguments of a command are read
        resolve(dict(parse_assignment(word) for word in words))
        return
    options = {}
    if how == b"teacher":
        arch, _, lines = lines.partition(b"\n")
        options = teacher_options(arch.decode(errors="surrogateescape"))
    path = folder / "options.yaml"
    path.write_bytes(lines)
    options |= read_options(path)
    if how == b"distill":
        resolve_distillation(options)
    else:
        resolve(options)


KIND = Kind("options", 30_000, _valid, _mutate, _attempt)
