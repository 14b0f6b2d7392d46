"""Turn flat options, as a YAML file or a command line gives them, into a validated distillation or teacher."""

from dataclasses import fields, replace
from typing import Any

from qvit.distill.guide import DistillConfig
from qvit.distill.pipeline import DistillationConfig
from qvit.errors import ConfigError, nearest
from qvit.training.options import option_keys, resolve
from qvit.validate import validated

KD_KEYS = tuple(f.name for f in fields(DistillConfig))
OWN_KEYS = tuple(f.name for f in fields(DistillationConfig) if f.name not in ("student", "how"))
STAGE_KEYS = ("pretrain", "finetune")
JOINT_ALPHA = 0.5

# Teachers' architectures that have a name of their own and stand for a model with options.
ALIASES: dict[str, dict[str, Any]] = {
    "vit": {"model": "vit_16q4h", "depth": 4, "mlp_dim": 128, "dropout": 0.1, "lr": 2e-3}
}
# How teachers are trained by default; chosen on validation splits.
TEACHER_DEFAULTS: dict[str, Any] = {"epochs": 40, "lr": 3e-3, "weight_decay": 0.1}


def teacher_options(arch: str) -> dict[str, Any]:
    """Return the flat options that train a teacher; `arch` is a name in `ALIASES`, or any model's name."""
    return TEACHER_DEFAULTS | ALIASES.get(arch, {"model": arch})


def resolve_distillation(options: dict[str, Any]) -> DistillationConfig:
    """Return the distillation for flat options: those of the student's run, of `DistillConfig`, and of the stages.

    `student`, or `model`, is the student's model. With `joint`, α is 0.5 unless it is given. Raises `ConfigError` for
    unknown keys and impossible values.
    """
    if "student" in options:
        options = {key: value for key, value in options.items() if key != "student"} | {"model": options["student"]}
    known = (*option_keys(), *KD_KEYS, *OWN_KEYS)
    for key in options:
        if key not in known:
            raise ConfigError(f"There is no option '{key}'.{nearest(key, known)} Known options: {', '.join(known)}.")
    stages = {stage: _stage(stage, options[stage]) for stage in STAGE_KEYS if options.get(stage) is not None}
    how = {key: value for key, value in options.items() if key in KD_KEYS}
    own = {key: value for key, value in options.items() if key in OWN_KEYS and value is not None}
    student = resolve({key: value for key, value in options.items() if key not in (*KD_KEYS, *OWN_KEYS)})
    config = validated(DistillationConfig, {"student": student, **own, **stages})  # first, so that joint is a bool
    if config.joint and "alpha" not in how:
        how["alpha"] = JOINT_ALPHA
    return replace(config, how=validated(DistillConfig, how))


def _stage(stage: str, options: Any) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise ConfigError(f"{stage} must hold `key: value` options of training, such as `lr: 0.001`, got {options!r}.")
    return {str(key): value for key, value in options.items()}
