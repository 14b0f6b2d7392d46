"""Flat options become a distillation: read and sorted; none is dropped. See `test_wrong_options` for those refused."""

from dataclasses import fields
from typing import Any

import pytest

from qvit.distill import DistillationConfig, DistillConfig, resolve_distillation
from qvit.distill.options import (
    ALIASES,
    JOINT_ALPHA,
    KD_KEYS,
    OWN_KEYS,
    STAGE_KEYS,
    TEACHER_DEFAULTS,
    teacher_options,
)
from qvit.errors import ConfigError
from qvit.models import NetworkConfig, ViTConfig, model_config
from qvit.models.networks import NETWORKS
from qvit.training.options import RunConfig, option_keys, resolve

# A value other than the default for every option that a run does not have.
VALUES: dict[str, Any] = {
    "kd_loss": "mse",
    "temperature": 4.0,
    "alpha": 0.25,
    "beta": 8.0,
    "feature_weight": 0.5,
    "attention_weight": 100.0,
    "joint": True,
    "pretrain": {"epochs": 7},
    "finetune": {"lr": 1e-4},
    "transfer_set": "bloodmnist",
    "mixtures": 50,
    "scratch": False,
}
COMPANIONS: dict[str, dict[str, Any]] = {"alpha": {"joint": True}}


def resolved(**options: Any) -> DistillationConfig:
    return resolve_distillation({"dataset": "phantom"} | options)


def test_defaults_are_those_of_the_dataclasses() -> None:
    assert resolved() == DistillationConfig(RunConfig("phantom"), DistillConfig())
    assert resolved().how.alpha == 1.0


def test_keys_do_not_collide_and_none_is_forgotten() -> None:
    keys = (*option_keys(), *KD_KEYS, *OWN_KEYS)
    assert len(set(keys)) == len(keys)
    assert set(KD_KEYS) == {field.name for field in fields(DistillConfig)}
    assert {*OWN_KEYS, "student", "how"} == {field.name for field in fields(DistillationConfig)}
    assert set(STAGE_KEYS) < set(OWN_KEYS)
    assert VALUES.keys() == {*KD_KEYS, *OWN_KEYS}


@pytest.mark.parametrize("key", [*KD_KEYS, *OWN_KEYS])
def test_every_key_arrives(key: str) -> None:
    config = resolved(**COMPANIONS.get(key, {}), **{key: VALUES[key]})
    assert getattr(config.how if key in KD_KEYS else config, key) == VALUES[key]
    assert getattr(resolved().how if key in KD_KEYS else resolved(), key) != VALUES[key]


def test_the_students_options_are_those_of_a_run() -> None:
    options = {"model": "vit_4q1h", "seed": 3, "epochs": 5, "lr": "1e-3", "depth": 2, "size": 64}
    config = resolved(**options, temperature=3)
    assert config.student == resolve({"dataset": "phantom"} | options)
    assert config.how.temperature == 3.0


def test_values_are_converted_where_the_meaning_is_clear() -> None:
    config = resolved(temperature="4", joint="true", scratch="false", alpha="0.25")
    assert config.how == DistillConfig(temperature=4.0, alpha=0.25)
    assert (config.joint, config.scratch) == (True, False)
    assert resolved(joint="false") == resolved(), "not jointly, so α is 1"


def test_the_student_may_be_called_by_either_name() -> None:
    assert resolved(student="vit_4q1h") == resolved(model="vit_4q1h") != resolved()


@pytest.mark.parametrize("key", OWN_KEYS)
def test_nothing_is_the_default(key: str) -> None:
    assert resolved(**{key: None}) == resolved()


def test_learning_jointly_alpha_is_a_half_unless_said() -> None:
    assert JOINT_ALPHA == 0.5
    assert resolved(joint=True).how.alpha == 0.5
    assert resolved(joint=True, alpha=1.0).how.alpha == 1.0
    assert resolved(joint=False).how.alpha == 1.0


def test_bounds_of_distillation() -> None:
    with pytest.raises(ConfigError, match=r"^mixtures must be at most 1,000,000 images, got 1000000000000\.$"):
        resolve_distillation({"dataset": "phantom", "mixtures": 10**12})


# --- teachers ---


@pytest.mark.parametrize("arch", [*NETWORKS, *ALIASES, "qvit_4q1h", "vit_4q2h"])
def test_every_teacher_can_be_trained(arch: str) -> None:
    config = resolve({"dataset": "phantom"} | teacher_options(arch))
    expected = TEACHER_DEFAULTS | ALIASES.get(arch, {})
    assert {key: getattr(config.train, key) for key in TEACHER_DEFAULTS} == {
        key: expected[key] for key in TEACHER_DEFAULTS
    }
    architecture = model_config(config.model, **config.model_options)
    if arch in NETWORKS:
        assert isinstance(architecture, NetworkConfig)
        assert architecture.arch == config.model == arch
    else:
        assert isinstance(architecture, ViTConfig)
        assert config.model == ALIASES.get(arch, {"model": arch})["model"]


def test_the_strong_vit_is_strong() -> None:
    config = resolve({"dataset": "phantom"} | teacher_options("vit"))
    architecture = model_config(config.model, **config.model_options)
    assert isinstance(architecture, ViTConfig)
    students = model_config("qvit_4q2h")
    assert isinstance(students, ViTConfig)
    assert architecture.dim == 64 > 4 * students.dim
    assert architecture.depth > 2 * students.depth
    assert architecture.dropout > 0, "few images"


def test_defaults_are_not_shared() -> None:
    teacher_options("vit")["epochs"] = 0
    assert TEACHER_DEFAULTS["epochs"] == 40
    assert "epochs" not in ALIASES["vit"]
