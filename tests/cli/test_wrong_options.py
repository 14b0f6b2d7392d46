"""A wrong value of each option of each command, and the line that answers it: a table compared with the application."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.borders import COMMANDS, parameters
from qvit.quantum import ANSATZE

pytestmark = pytest.mark.usefixtures("untrained", "small_phantom")
Qvit = Callable[..., Any]
Tree = Callable[[Path], dict[str, bytes | None]]
Wrong = dict[str, tuple[str, str]]  # arguments, and what is said; HERE stands for the working directory
ABOVE = "Input should be greater than or equal to"
NEVER = "never"  # in place of arguments: no value is wrong, for the reason that follows
KNOWN = (
    "Expected one of: pathmnist, chestmnist, dermamnist, octmnist, pneumoniamnist, retinamnist, breastmnist, "
    "bloodmnist, tissuemnist, organamnist, organcmnist, organsmnist, phantom; or the path of a folder or table of "
    "pictures, or .npz file."
)
MODELS = (
    "Names are {qvit|vit|cosine|identity|no_entangler|frozen|givens|circulant|unlu}_{qubits}q{heads}h, such "
    "as qvit_4q2h; resnet18, resnet50, densenet121, efficientnet_b0, monai_vit, dsconv, logistic, extra_trees, "
    "nearest, commonest; and timm/NAME."
)
WRITTEN = "it cannot be written (Not a directory). Choose another with --root or the environment variable QVIT_DATA."
MISSING = "expected an .npz file, found nothing there. Check the path for a typing error."
NO_PICTURES = (
    "expected a folder of pictures, found no .png or .jpg or .jpeg in it, nor a folder. Put the pictures of each class "
    "into a folder of its own: FOLDER/CLASS/picture.png."
)
ANSATZ = f"Known ansätze: {', '.join(ANSATZE)}."

NO_TABLE = "small.npz takes no option {}: these are for folders and tables of pictures."
UNKNOWN_TASK = (
    "Unknown task 'ordinl'. Did you mean 'ordinal'? Expected one of: binary, multi-class, multi-label, ordinal."
)
NOTHING = (
    "empty/breastmnist.npz: expected the official file of BreastMNIST, found nothing there. Run 'qvit data "
    "get breastmnist', or save https://zenodo.org/records/10519652/files/breastmnist.npz?download=1 (MD5 "
    "750601b1f35ba3300ea97c75c52ff8f6) there."
)


def of_data(after: str = "") -> Wrong:
    """Return the rows of options that all commands on own data take."""
    other = "Leave the size out, or resize the images."
    return {
        "name": (f"missing.npz{after}", f"missing.npz: {MISSING}"),
        "size": (
            f"small.npz{after} --size 64",
            f"small.npz: expected images of 64 x 64 pixels, found 12 x 12. {other}",
        ),
        "root": (f"breastmnist{after} --root empty", NOTHING),
        "label": (f"small.npz{after} --label sex", NO_TABLE.format("label")),
        "group_by": (f"small.npz{after} --group-by id", NO_TABLE.format("group_by")),
        "task": (f"small.npz{after} --task ordinl", UNKNOWN_TASK),
        "assign": (
            f"small.npz{after} --set fitt=pad",
            "There is no option 'fitt'. Did you mean 'fit'? Known: label, group_by, fit, channels, shares, split_seed, "
            "frames, bits, max_bad.",
        ),
    }


FOR_OTHERS = "--label and --group-by are for other data than the run was trained on, given with --data."


# Of the commands that train.
OF_RUNS: Wrong = {
    "dataset": ("retinamist", f"Unknown dataset 'retinamist'. Did you mean 'retinamnist'? {KNOWN}"),
    "seed": ("phantom --seed -1", "seed must be zero or more, got -1."),
    "epochs": ("phantom --epochs 0", "epochs must be at least 1, got 0."),
    "config": (
        "phantom --config no.yaml",
        "Cannot read the options file no.yaml: there is no such file. Give a YAML file of `key: value` lines, such "
        "as `lr: 0.005` or a recipe, one of: defaults, small-features, tiny.",
    ),
    "assign": ("phantom --set epochs", "--set takes key=value, such as lr=0.005; got 'epochs'."),
    "data": ("phantom --data a.npz", "Both a dataset ('phantom') and --data (a.npz) were given; use one of them."),
    "task": (
        "small.npz --task ordinl",
        "Unknown task 'ordinl'. Did you mean 'ordinal'? Expected one of: binary, multi-class, multi-label, ordinal.",
    ),
    "size": ("phantom --size 29", "phantom: expected an even size of at least 28 pixels, got 29; try 28 or 64."),
    "label": ("small.npz --label sex", NO_TABLE.format("label")),
    "group_by": ("small.npz --group-by id", NO_TABLE.format("group_by")),
    "root": (
        "breastmnist --root small.npz/x",
        f"small.npz/x: expected a folder to download breastmnist.npz to, but {WRITTEN}",
    ),
    "out": (
        "small.npz --out small.npz",
        "Cannot use small.npz as a run folder: File exists. Choose another with --out.",
    ),
}
WRONG: dict[str, Wrong] = {
    "data info": {
        "name": ("retinamist", f"Unknown dataset 'retinamist'. Did you mean 'retinamnist'? {KNOWN}"),
        "label": ("small.npz --label sex", NO_TABLE.format("label")),
        "group_by": ("octmnist --group-by id", NO_TABLE.format("group_by").replace("small.npz", "Dataset 'octmnist'")),
    },
    "data get": {
        "name": ("retinamist", f"Unknown dataset 'retinamist'. Did you mean 'retinamnist'? {KNOWN}"),
        "size": (
            "retinamnist --size 29",
            "Dataset 'retinamnist' has no files of size 29; expected one of 28, 64, 128, 224.",
        ),
        "root": (
            "retinamnist --root small.npz/x",
            f"small.npz/x: expected a folder to download retinamnist.npz to, but {WRITTEN}",
        ),
    },
    "data import": {
        "path": ("small.npz", "Expected a folder, or a table that ends in .csv or .tsv, got small.npz."),
        "out": ("empty --out a.zip", "Expected a name that ends in .npz with --out, got a.zip."),
        "size": ("empty --size 0", "size must be from 1 to 10,000 pixels, got 0."),
        "root": ("empty --root small.npz/x", f"empty: {NO_PICTURES}"),
        "label": ("empty --label x", "label='x' is a column of a table; the classes of empty are its folders."),
        "group_by": (
            "empty --group-by (",
            "group_by='(' is no regular expression (missing ), unterminated subpattern at position 0). Name a column "
            "of a table, or give a pattern such as 'patient([0-9]+)'.",
        ),
        "task": ("empty --task ordinl", UNKNOWN_TASK),
        "fit": ("empty --fit stretch", "Option fit='stretch': Input should be 'crop' or 'pad'."),
        "channels": ("empty --channels 1", "Option channels='1': Input should be 'auto', 'grey' or 'rgb'."),
        "max_bad": (
            "empty --max-bad few",
            "Invalid value for '--max-bad': Input should be a valid integer, unable to parse string as an integer",
        ),
        "assign": ("empty --set shares=1", "Option shares=1: Input should be a valid tuple."),
    },
    "data export": of_data(" there")
    | {"folder": ("small.npz run", "run: expected an empty folder, or none, found 8 files. Choose another.")},
    "data verify": of_data(),
    "data preview": of_data(" --out empty")
    | {"out": ("small.npz --out small.npz", "Cannot use small.npz as a folder: File exists. Choose another.")},
    "models": {
        "channels": ("--channels 0", "in_chans must be at least 1, got 0."),
        "classes": ("--classes 0", "num_classes must be at least 1, got 0."),
        "size": (
            "--size 29",
            "No patch size suits images of 29 pixels (4 or more, dividing 29, at most 14 × 14 patches); pass "
            "patch_size, or resize the images.",
        ),
        "cost": ("--cost qvit_4q3x", f"There is no model 'qvit_4q3x'. Did you mean 'qvit_4q2h'? {MODELS}"),
    },
    "circuit": {
        "ansatz": ("ry_rng", f"There is no ansatz 'ry_rng'. Did you mean 'ry_ring'? {ANSATZ}"),
        "qubits": ("ry_ring --qubits 1001", "--qubits must be from 1 to 1000, got 1001."),
        "layers": ("ry_ring --layers 0", "--layers must be from 1 to 1000, got 0."),
        "picture": ("ry_ring --picture p.gif", "--picture needs a file that ends in .png, .svg, .pdf, got p.gif."),
    },
    "train": {
        "seeds": ("phantom --seeds 0", "--seeds must be from 1 to 1,000, got 0."),
        "folds": ("phantom --folds 1", "folds must be from 2 to 100, got 1."),
        "memory": ("phantom --seeds 2 --memory 0", "--memory must be positive, got 0.0."),
        **OF_RUNS,
        "model": ("phantom --model qvit_4q3x", f"There is no model 'qvit_4q3x'. Did you mean 'qvit_4q2h'? {MODELS}"),
    },
    "teacher": {
        **OF_RUNS,
        "arch": ("phantom --arch resnet81", f"There is no model 'resnet81'. Did you mean 'resnet18'? {MODELS}"),
    },
    "distill": {
        **OF_RUNS,
        "seeds": ("--teacher run small.npz --seeds 0", "--seeds must be from 1 to 1,000, got 0."),
        "memory": ("--teacher run small.npz --seeds 2 --memory 0", "--memory must be positive, got 0.0."),
        "out": (
            "--teacher run small.npz --out small.npz",
            "Cannot use small.npz as a folder of runs: Not a directory. Choose another with --out.",
        ),
        "teacher": ("phantom --teacher nowhere", "nowhere is not a run folder: result.json is missing."),
        "student": (
            "--teacher run small.npz --student qvit_4q3x",
            f"There is no model 'qvit_4q3x'. Did you mean 'qvit_4q2h'? {MODELS}",
        ),
        "kd_loss": (
            "--teacher run small.npz --kd-loss softer",
            "Option kd_loss='softer': Input should be 'soft', 'ordinal', 'mse', 'decoupled' or 'none'.",
        ),
        "temperature": ("--teacher run small.npz --temperature 0", "temperature must be positive, got 0.0."),
        "alpha": (
            "--teacher run small.npz --alpha 0.3",
            "The first of two stages learns from the teacher alone, alpha=1, got 0.3; learn from both at once with "
            "--joint.",
        ),
        "transfer_set": ("--teacher run small.npz --transfer-set nowhere.npz", f"nowhere.npz: {MISSING}"),
        "mixtures": ("--teacher run small.npz --mixtures -1", "mixtures must be zero or more images, got -1."),
        "pretrain": (
            "--teacher run small.npz --pretrain lr",
            "--pretrain takes key=value, such as lr=0.005; got 'lr'.",
        ),
        "finetune": (
            "--teacher run small.npz --finetune seed=3",
            "There is no option 'seed' for finetune. Did you mean 'schedule'? A stage has the options of training: "
            "epochs, batch_size, lr, weight_decay, schedule, warmup, clip_norm, loss, label_smoothing, "
            "class_weights, augment, distort, mixup, tta, keep, average, patience, device, threads.",
        ),
        "cache": (
            "--teacher run small.npz --cache small.npz",
            "Cannot use small.npz as a folder of teacher outputs: File exists. Choose another with --cache.",
        ),
    },
    "tune": {name: (f"--menu menu.yaml {words}", line) for name, (words, line) in OF_RUNS.items() if name != "epochs"}
    | {
        "out": (
            "--menu menu.yaml small.npz --out small.npz",
            "Cannot use small.npz as the folder of a tuning: File exists. Choose another with --out.",
        ),
        "model": (
            "--menu menu.yaml small.npz --model qvit_4q3x",
            f"There is no model 'qvit_4q3x'. Did you mean 'qvit_4q2h'? {MODELS}",
        ),
        "parameters": ("--menu menu.yaml phantom --parameters 0", "parameters must be at least 1, got 0."),
        "minutes": (
            "--menu menu.yaml phantom --minutes 0",
            "minutes must be above 0 and at most 100,000, got 0.0.",
        ),
        "trials": ("--menu menu.yaml phantom --trials 0", "trials must be from 1 to 10,000, got 0."),
        "folds": ("--menu menu.yaml phantom --folds 1", "folds must be from 2 to 100, got 1."),
        "seeds": ("--menu menu.yaml phantom --seeds 0", "seeds must be from 1 to 1,000, got 0."),
        "menu": (
            "phantom --menu none.yaml",
            "There is no file none.yaml. Give the YAML file of a menu, or leave --menu out.",
        ),
        "repeat": ("--repeat none.json", "none.json is missing; name the tune.json that `qvit tune` wrote."),
        "workers": ("--menu menu.yaml phantom --workers 0", "workers must be at least 1, got 0."),
        "memory": ("--menu menu.yaml phantom --memory 0", "memory must be positive, got 0.0."),
    },
    "recipes": {
        **{name: OF_RUNS[name] for name in ("dataset", "data", "task", "label", "group_by")},
        "size": (
            "phantom --size 29",
            "No patch size suits images of 29 pixels (4 or more, dividing 29, at most 14 × 14 patches); pass "
            "patch_size, or resize the images.",
        ),
        "root": (NEVER, "nothing is downloaded: an official dataset needs no file to be counted for"),
    },
    "evaluate": {
        "run": ("nowhere", "nowhere is not a run folder: result.json is missing."),
        "split": ("run --split training", "Unknown split 'training'. Expected one of: train, val, test."),
        "data": ("run --data nowhere.npz", f"nowhere.npz: {MISSING}"),
        "label": ("run --label sex", FOR_OTHERS),
        "group_by": ("run --group-by patient", FOR_OTHERS),
        "picture": ("run --picture p.gif", "--picture needs a file that ends in .png, .svg, .pdf, got p.gif."),
        "root": (NEVER, "looked at where a run is of an official file: see data get"),
    },
    "predict": {
        "run": ("nowhere p.png", "nowhere is not a run folder: result.json is missing."),
        "images": ("run none.txt", "There is no file none.txt."),
        "ensemble": ("run p.png --with nowhere", "nowhere is not a run folder: result.json is missing."),
        "sets": ("run p.png --sets 1", "sets must be above 0 and below 1, got 1.0."),
        "coverage": ("run p.png --coverage 0", "coverage must be above 0 and at most 1, got 0.0."),
        "error": ("run p.png --error 2", "error must be above 0 and at most 1, got 2.0."),
        "alarms": ("run p.png --alarms 1", "alarms must be from 0 to below 1, got 1.0."),
        "group_by": (
            "run p.png --group-by (",
            "group_by='(' is no regular expression (missing ), unterminated subpattern at position 0). Name a column "
            "of a table, or give a pattern such as 'patient([0-9]+)'.",
        ),
        "root": (NEVER, "looked at where a run is of an official file: see data get"),
        "data": (NEVER, "without it answers are given that are not calibrated, with a warning"),
        "table": (
            "run p.png --csv small.npz/t.csv",
            "Cannot write small.npz/t.csv: Not a directory. Nothing was lost; free some space or choose a folder that "
            "you may write to.",
        ),
    },
    "calibrate": {
        "run": ("nowhere", "nowhere is not a run folder: result.json is missing."),
        "sensitivity": ("run --sensitivity 2", "sensitivity must be above 0 and at most 1, got 2.0."),
        "specificity": (
            "run --specificity 0.5",
            "A specificity is chosen for yes-or-no questions, and this task is multi-class. Leave it out.",
        ),
        "data": ("run --data nowhere.npz", f"nowhere.npz: {MISSING}"),
        "root": (NEVER, "looked at where a run is of an official file: see data get"),
    },
    "explain": {
        "run": ("nowhere p.png", "nowhere is not a run folder: result.json is missing."),
        "images": ("run none.txt", "There is no file none.txt."),
        "out": (
            "run p.png --out small.npz",
            "Cannot use small.npz as a folder: File exists. Choose another with --out.",
        ),
        "split": ("run --split training", "Unknown split 'training'. Expected one of: train, val, test."),
        "target": ("run p.png --class x", "Expected a class that the run knows (0, 1, 2), got 'x'."),
        "beside": ("run p.png --beside nowhere", "nowhere is not a run folder: result.json is missing."),
        "data": (NEVER, "as for predict"),
        "root": (NEVER, "looked at where a run is of an official file: see data get"),
    },
    "serve": {
        "run": ("nowhere", "nowhere is not a run folder: result.json is missing."),
        "host": (
            "run --host 192.0.2.7",
            "Cannot listen on port 8000 of 192.0.2.7: Cannot assign requested address. "
            "Choose another with --port; 0 takes any that is free.",
        ),
        "port": ("run --port 70000", "Invalid value for '--port': Input should be less than or equal to 65535"),
        "megabytes": ("run --megabytes 0", "megabytes must be above 0 and at most 1000, got 0.0."),
        "megapixels": ("run --megapixels 101", "megapixels must be above 0 and at most 100, got 101.0."),
        "sets": ("run --sets 1", "sets must be above 0 and below 1, got 1.0."),
        "coverage": ("run --coverage 0", "coverage must be above 0 and at most 1, got 0.0."),
        "error": ("run --error 2", "error must be above 0 and at most 1, got 2.0."),
        "alarms": ("run --alarms 1", "alarms must be from 0 to below 1, got 1.0."),
        "root": (NEVER, "looked at where a run is of an official file: see data get"),
        "data": (NEVER, "as for predict"),
    },
    "card": {
        "run": ("nowhere", "nowhere is not a run folder: result.json is missing."),
        "out": (
            "run --out small.npz/card.md",
            "Cannot write small.npz/card.md: Not a directory. Nothing was lost; free some space or choose a folder "
            "that you may write to.",
        ),
    },
    "push": {
        "run": ("nowhere cells", "nowhere is not a run folder: result.json is missing."),
        "repo": (
            "run a/b/c",
            "Expected a repository owner/name, got 'a/b/c'. Repo id must be in the form 'repo_name' or "
            "'namespace/repo_name': 'a/b/c'. Use `repo_type` argument if needed.",
        ),
        "revision": (NEVER, "what a hub says of a branch takes a hub: see tests/answers/test_hub.py"),
        "message": (NEVER, "any text is one, and an empty one counts as none"),
    },
    "compare": {
        "runs": ("run nowhere", "nowhere is not a run folder: config.json is missing."),
        "picture": (
            "run --picture small.npz/p.png",
            "Cannot write small.npz/p.png: Not a directory. Nothing was lost; free some space or choose a folder "
            "that you may write to.",
        ),
        "data": ("run --picture p.png --data nowhere.npz", f"nowhere.npz: {MISSING}"),
        "root": (NEVER, "looked at where a run is of an official file: see data get"),
    },
    "demo": {
        "dataset": ("retinamist", f"Unknown dataset 'retinamist'. Did you mean 'retinamnist'? {KNOWN}"),
        "epochs": ("--epochs 0", "epochs must be at least 1, got 0."),
        "seed": ("--seed -1", "seed must be zero or more, got -1."),
        "size": ("--size 29", "phantom: expected an even size of at least 28 pixels, got 29; try 28 or 64."),
        "label": ("small.npz --label sex", NO_TABLE.format("label")),
        "group_by": ("small.npz --group-by id", NO_TABLE.format("group_by")),
        "out": (
            "small.npz --out small.npz",
            "Cannot use small.npz/qvit_4q2h as a run folder: Not a directory. Choose another with --out.",
        ),
        "root": (
            "breastmnist --root small.npz/x",
            f"small.npz/x: expected a folder to download breastmnist.npz to, but {WRITTEN}",
        ),
    },
    "study plan": {
        "file": (
            "smok",
            "Cannot read the study smok: there is no such file. Did you mean 'smoke'? Name a YAML file or one of: "
            "controls, paper, scaling, smoke.",
        ),
        "dataset": (
            "tiny.yaml --dataset phantm",
            "The study tiny has no dataset 'phantm'. Did you mean 'phantom'? It has: phantom.",
        ),
        "seeds": ("tiny.yaml --seeds 4", "The study tiny has 3 seeds: --seeds must be from 1 to that number, got 4."),
        "workers": (
            "tiny.yaml --workers 0",
            "Invalid value for '--workers': Input should be greater than or equal to 1",
        ),
        "root": (NEVER, "nothing is downloaded: what it holds is looked at where it is there"),
    },
    "study run": {
        "memory": ("tiny.yaml --memory 0", "memory must be positive, got 0.0."),
        "file": (
            "no.yaml",
            "Cannot read the study no.yaml: there is no such file. Name a YAML file or one of: controls, paper, "
            "scaling, smoke.",
        ),
        "out": ("tiny.yaml --out .", ". is not empty and holds no study; choose another with --out."),
        "workers": (
            "tiny.yaml --workers 0",
            "Invalid value for '--workers': Input should be greater than or equal to 1",
        ),
        "dataset": (
            "tiny.yaml --dataset phantm",
            "The study tiny has no dataset 'phantm'. Did you mean 'phantom'? It has: phantom.",
        ),
        "seeds": ("tiny.yaml --seeds 4", "The study tiny has 3 seeds: --seeds must be from 1 to that number, got 4."),
        "root": (
            "mine.yaml --root empty --offline",
            "empty/breastmnist.npz: expected the official file of BreastMNIST, found nothing there. Run 'qvit data "
            "get breastmnist', or save https://zenodo.org/records/10519652/files/breastmnist.npz?download=1 (MD5 "
            "750601b1f35ba3300ea97c75c52ff8f6) there.",
        ),
        "ray": (NEVER, "what Ray says of an address takes a cluster: see tests/study/test_ray_pool.py"),
    },
    "study status": {
        "folder": ("empty", "empty holds no study (study.sqlite is missing); make one with `qvit study run`."),
    },
    "study report": {
        "folder": ("nowhere", "nowhere holds no study (study.sqlite is missing); make one with `qvit study run`."),
        "out": (NEVER, "that takes a finished study: see tests/report/test_page.py"),
    },
    "bench layer": {
        "sizes": ("--sizes 4", "--sizes takes QUBITSxLAYERS, such as 4x2,8x1, each up to 1000, got '4'."),
        "ansatz": ("--ansatz ry_rin", f"There is no ansatz 'ry_rin'. Did you mean 'ry_ring'? {ANSATZ}"),
        "tokens": ("--tokens 0", "Invalid value for '--tokens': Input should be greater than or equal to 1"),
        "peers": (
            "--peers penylane",
            "There is no peer 'penylane'. Did you mean 'pennylane'? Known: pennylane, tensorcircuit, auto, none.",
        ),
        "threads": ("--threads 0", "Invalid value for '--threads': Input should be greater than or equal to 1"),
        "out": ("--out small.npz", "Cannot use small.npz: File exists. Choose another folder with --out."),
    },
    "bench step": {
        "batch": ("--batch 0", "Invalid value for '--batch': Input should be greater than or equal to 1"),
        "repeats": ("--repeats 2", "Invalid value for '--repeats': Input should be greater than or equal to 3"),
        "threads": ("--threads 1025", "Invalid value for '--threads': Input should be less than or equal to 1024"),
        "out": ("--out small.npz", "Cannot use small.npz: File exists. Choose another folder with --out."),
    },
    "bench engines": {
        "qubits": ("--qubits two", "--qubits takes whole numbers from 1 to 1,000, such as 4,8, got 'two'."),
        "layers": ("--layers 1,0", "--layers takes whole numbers from 1 to 1,000, such as 4,8, got '1,0'."),
        "tokens": ("--tokens 1000001", "--tokens takes whole numbers from 1 to 1,000,000, such as 4,8, got '1000001'."),
        "ansatz": (
            "--qubits 2 --layers 1 --tokens 1 --ansatz ry_rin",
            f"There is no ansatz 'ry_rin'. Did you mean 'ry_ring'? {ANSATZ}",
        ),
        "repeats": ("--repeats 2", "Invalid value for '--repeats': Input should be greater than or equal to 3"),
        "threads": ("--threads 0", "Invalid value for '--threads': Input should be greater than or equal to 1"),
        "out": ("--out small.npz/x", "Cannot use small.npz/x: Not a directory. Choose another folder with --out."),
    },
    "bench gradients": {
        "qubits": ("--qubits 1_0", "--qubits takes whole numbers from 1 to 1,000, such as 4,8, got '1_0'."),
        "layers": ("--layers ,", "--layers takes whole numbers from 1 to 1,000, such as 4,8, got ','."),
        "ansatz": (
            "--qubits 2 --layers 1 --ansatz ry_rin",
            f"There is no ansatz 'ry_rin'. Did you mean 'ry_ring'? {ANSATZ}",
        ),
        "samples": ("--samples 1", "Invalid value for '--samples': Input should be greater than or equal to 2"),
        "threads": ("--threads 0", "Invalid value for '--threads': Input should be greater than or equal to 1"),
        "out": ("--out small.npz", "Cannot use small.npz: File exists. Choose another folder with --out."),
    },
}


def test_each_option_that_takes_a_value_is_in_the_table() -> None:
    assert {" ".join(path): names for path in COMMANDS if (names := with_values(path))} == {
        name: set(rows) for name, rows in WRONG.items()
    }


def with_values(path: tuple[str, ...]) -> set[str]:
    return {name for name, parameter in parameters(path).items() if not getattr(parameter, "is_flag", False)}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::qvit.answers.predictor.CalibrationWarning")
@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_value_is_answered_by_one_line_and_changes_nothing(
    command: str, qvit: Qvit, tree: Tree, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qvit.distill.teacher_cache.user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # benchmarks do, for the whole process
    Path("empty").mkdir()
    Path("mine.yaml").write_text("datasets: breastmnist\nmodels: vit_4q1h\n")
    Path("menu.yaml").write_text("entries: [{recipe: defaults}]\n")
    Path("tiny.yaml").write_text("datasets: phantom\nmodels: vit_4q1h\nseeds: 3\n")
    if command in ("predict", "explain", "serve"):
        qvit("calibrate", "run")  # which is done when a run is first asked
    before = tree(tmp_path)
    for name, (words, line) in WRONG[command].items():
        if words != NEVER:
            before_words = ["--teacher", "run"] if command == "distill" and name in OF_RUNS else []
            told = qvit(*command.split(), *before_words, *words.split())
            assert (told.code, told.err.replace(str(tmp_path), "HERE")) == (2, f"Error: {line}\n"), name
            # What was found before the mistake was noticed is not kept back.
            assert bool(told.out) == (command == "compare" and name != "runs"), name
    if command == "study run":  # its folder is made before its data are looked at
        shutil.rmtree("runs")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_flags_take_no_value_and_no_command_takes_what_it_does_not_know(path: tuple[str, ...], qvit: Qvit) -> None:
    for name, parameter in parameters(path).items():
        if name not in with_values(path):
            flag = parameter.opts[0]
            assert qvit(*path, f"{flag}=1") == (2, "", f"Error: Option '{flag}' does not take a value.\n")
    assert qvit(*path, "--zzzz", "3") == (2, "", "Error: No such option: --zzzz\n")
