"""Models by name: `{kind}_{q}q{h}h`, q qubits (or features) per head and h heads, or a classical network's name."""

import re
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import log
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from qvit.errors import CircuitError, ConfigError, ModelError, nearest
from qvit.models.baselines import BASELINES, Baseline, BaselineConfig
from qvit.models.dsconv import DSCONV, DSConv, DSConvConfig
from qvit.models.networks import NETWORKS, TIMM, Network, NetworkConfig
from qvit.models.projections import PROJECTIONS, Quantum, make_projection, projection_options
from qvit.models.vit import ViT, ViTConfig
from qvit.validate import validated

KINDS = {{"quantum": "qvit", "linear": "vit"}.get(kind, kind): kind for kind in PROJECTIONS}
SIZES = ("4q1h", "4q2h", "8q1h", "8q2h")
SAID_BY_NAME = ("dim", "heads", "projection")
MATCH_TOLERANCE = 0.03
ModelConfig = ViTConfig | NetworkConfig | DSConvConfig | BaselineConfig
Model = ViT | Network | DSConv | Baseline
OTHERS: tuple[type[Any], ...] = (NetworkConfig, DSConvConfig, BaselineConfig)  # kinds of configurations with an `arch`
MATCHED = "_matched"
_NAME = re.compile(rf"([a-z_]+)_([0-9]{{1,9}})q([0-9]{{1,9}})h({MATCHED})?")


@dataclass(frozen=True)
class ModelName:
    """What the name of a ViT says: `givens_8q2h_matched` is of the kind `givens`."""

    kind: str
    qubits: int
    heads: int
    matched: bool


def parse_name(name: str) -> ModelName | None:
    """Return what a name of the form `{kind}_{q}q{h}h` says, even of an unknown kind; None for other names."""
    found = _NAME.fullmatch(name)
    return None if found is None else ModelName(found[1], int(found[2]), int(found[3]), found[4] is not None)


def list_models() -> list[str]:
    """Return the names of the shipped models.

    Other sizes, such as `qvit_6q3h`, work as well, and so does `_matched` after any kind but qvit.
    """
    return [f"{kind}_{size}" for kind in KINDS for size in SIZES] + [f"vit_{size}_matched" for size in SIZES]


def create_model(
    name: str,
    *,
    in_chans: int = 3,
    num_classes: int = 2,
    img_size: int = 28,
    matched: bool = False,
    **options: Any,
) -> Model:
    """Build a model by name with fresh weights.

    `qvit_4q2h` has 2 heads of 4 qubits, so width 8; `vit_4q2h` is the same network with dense Q, K and V, and every
    other kind is the same network with that projection of `models.projections`. The names of `NETWORKS`, such as
    `resnet18`, and `timm/NAME` are strong classical networks, for teachers.

    `vit_4q2h_matched` (or `matched=True`) is the ViT of equivalent parameter count, within 3 % of `qvit_4q2h`'s: its
    width is shrunk in steps of the head count, which frees more than dense Q, K and V cost, and the MLP takes up the
    rest, so it is often wider. All else is equal. Any kind but qvit can be matched like this, such as
    `givens_8q2h_matched`; a model already within 3 % is not changed. Options that only the QViT takes (`n_layers`, if
    the kind is `vit`) describe the QViT to match; options that only the kind takes describe the model of that kind;
    options that both take (`n_layers`, if the kind is `unlu`) describe both.

    `logistic`, `extra_trees`, `nearest` and `commonest` are plain baselines (`models.baselines`), which know nothing
    until `training.run.train_run` fits them. `dsconv` is a convolutional network of about a thousand parameters;
    `dsconv_4q2h_matched` has the parameter count of `qvit_4q2h`, which options of `ViTConfig` and circuits describe.

    `options` are fields of `ViTConfig` or of the projection, or of the other kinds' configuration, such as `depth=2`.
    Raises `ConfigError` for unknown names and options, `ModelError` for sizes that do not fit together.
    """
    config = model_config(
        name, in_chans=in_chans, num_classes=num_classes, img_size=img_size, matched=matched, **options
    )
    return build(config)


def build(config: ModelConfig) -> Model:
    """Return the model that a configuration describes, with fresh weights."""
    match config:
        case ViTConfig():
            return ViT(config)
        case NetworkConfig():
            return Network(config)
        case DSConvConfig():
            return DSConv(config)
    return Baseline(config)


def build_without_numbers(config: ModelConfig) -> Model:
    """Return the model on torch's meta device, where it takes no memory and building it warns of nothing."""
    with torch.device("meta"), _NoSamples():
        return build(config)


class _NoSamples(TorchFunctionMode):
    """Skips drawing initial weights, for which torch would import its compiler on the meta device."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if getattr(function, "__name__", "") in ("normal_", "trunc_normal_", "uniform_", "kaiming_uniform_"):
            return arguments[0] if arguments else (named or {})["tensor"]
        return function(*arguments, **(named or {}))


def read_config(values: dict[str, Any]) -> ModelConfig:
    """Return the configuration whose `dataclasses.asdict` is `values`; those left out take their defaults.

    Raises `ConfigError` for unknown options and values of the wrong type; `ModelError` for impossible sizes.
    """
    kind = _kind_of(values["arch"]) if "arch" in values else ViTConfig
    known = {field.name for field in fields(kind)}
    strange = [str(key) for key in values if key not in known]
    projection = values.get("projection") if kind is ViTConfig else None
    if isinstance(projection, dict) and str(projection.get("kind")) in PROJECTIONS:
        of_kind = PROJECTIONS[str(projection["kind"])].__dataclass_fields__
        strange += [f"projection.{key}" for key in projection if key not in of_kind]
    if strange:
        raise ConfigError(f"Models have no option '{strange[0]}'. It may be of another version of qvit.")
    return validated(kind, values)


def model_config(name: str, *, matched: bool = False, **options: Any) -> ModelConfig:
    """Return the configuration that `create_model` would build; the same arguments and errors."""
    found = parse_name(name)
    if found is not None and found.kind == DSCONV:
        return _dsconv_config(name, found, matched, options)
    if name in (*NETWORKS, DSCONV, *BASELINES) or name.startswith(TIMM):
        return _other_config(name, matched, options)
    return vit_config(name, matched=matched, **options)


def _kind_of(arch: object) -> type[Any]:
    """Return the kind of configuration that a network has whose `arch` this is."""
    return BaselineConfig if arch in BASELINES else DSConvConfig if arch == DSCONV else NetworkConfig


def vit_config(name: str, *, matched: bool = False, **options: Any) -> ViTConfig:
    """Return the configuration of a ViT, quantum or classical; arguments and errors as for `create_model`."""
    found = parse_name(name)
    if found is None or found.kind not in KINDS:
        raise ConfigError(
            f"There is no model '{name}'.{nearest(name, [*list_models(), *NETWORKS, DSCONV, *BASELINES])} "
            f"Names are {{{'|'.join(KINDS)}}}_{{qubits}}q{{heads}}h, such as qvit_4q2h; "
            f"{', '.join((*NETWORKS, DSCONV, *BASELINES))}; and {TIMM}NAME."
        )
    matched = matched or found.matched
    if matched and found.kind == "qvit":
        twin = f"vit_{found.qubits}q{found.heads}h{MATCHED}"
        raise ConfigError(f"Other kinds are matched to the qvit, which cannot be matched itself; use {twin}, say.")
    for key in SAID_BY_NAME:
        if key in options:
            raise ConfigError(
                f"The name '{name}' already says the {key}; choose another name, such as qvit_6q3h or cosine_4q2h, "
                "or build ViT(ViTConfig(…))."
            )
    width = found.qubits * found.heads
    options = {"heads": found.heads, "dim": width, "mlp_dim": width} | options
    kind = KINDS[found.kind]
    if not matched:
        return _config(kind, options)
    of_quantum, of_kind = Quantum.__dataclass_fields__.keys(), PROJECTIONS[kind].__dataclass_fields__.keys()
    plain = _config(kind, {k: v for k, v in options.items() if k not in of_quantum - of_kind})
    quantum = _config("quantum", {k: v for k, v in options.items() if k not in of_kind - of_quantum})
    return _match(plain, count_parameters(quantum), MATCH_TOLERANCE)


def _other_config(name: str, matched: bool, options: dict[str, Any]) -> Any:
    if matched:
        raise ConfigError(f"Only a ViT, such as vit_4q2h, can be matched to its qvit, not '{name}'.")
    kind = _kind_of(name)
    known = [field.name for field in fields(kind) if field.name != "arch"]
    for key in options:
        if key not in known:
            raise ConfigError(f"{name} has no option '{key}'.{nearest(key, known)} Known: {', '.join(known)}.")
    return validated(kind, {"arch": name, **options})


def _dsconv_config(name: str, found: ModelName, matched: bool, options: dict[str, Any]) -> DSConvConfig:
    """Return the network matched to a QViT; what is no option of its own describes the QViT."""
    qvit = f"qvit_{found.qubits}q{found.heads}h"
    if not (matched or found.matched):
        raise ConfigError(
            f"There is no model '{name}'. A {DSCONV} has no qubits and heads: use {DSCONV}, or {name}{MATCHED}, which "
            f"has the parameter count of {qvit}."
        )
    for key in ("filters", "pooled"):
        if key in options:
            raise ConfigError(f"The parameter count of '{name}' says the {key}; leave it out, or use {DSCONV}.")
    own = {field.name for field in fields(DSConvConfig)}
    images = {key: value for key, value in options.items() if key in own}
    described = {key: value for key, value in options.items() if key not in own or key in _vit_fields()}
    quantum = vit_config(qvit, **described)
    return validated(DSConvConfig, images).matched(_count(quantum), MATCH_TOLERANCE)


@lru_cache(maxsize=1024)  # see `_match`
def _count(config: ViTConfig) -> int:
    return count_parameters(config)


def count_parameters(model: nn.Module | ModelConfig, *, within: str = "") -> int:
    """Return the number of trainable parameters of a model, or of the one that a configuration describes.

    Only parameters with `within` in their name count: "attention.project." selects those that make Q, K and V. Those of
    a plain baseline are the numbers that it stores, once it is fitted.
    """
    if not isinstance(model, nn.Module):
        model = build_without_numbers(model)
    if isinstance(model, Baseline) and not within:
        return model.head.numbers
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and within in name)


def _vit_fields() -> list[str]:
    return [field.name for field in fields(ViTConfig)]


def _config(kind: str, options: dict[str, Any]) -> ViTConfig:
    """Return the configuration of a ViT from options of its own and of its projection."""
    own = {key: value for key, value in options.items() if key in _vit_fields()}
    rest = {key: value for key, value in options.items() if key not in own}
    known = projection_options()
    for key in rest:
        if key not in known:
            valid = [name for name in (*_vit_fields(), *known) if name not in SAID_BY_NAME]
            raise ConfigError(f"Models have no option '{key}'.{nearest(key, valid)} Known: {', '.join(valid)}.")
    return validated(ViTConfig, {"projection": make_projection(kind, **rest)} | own)


@lru_cache(maxsize=1024)  # a run asks several times, a study for every seed, and each answer takes a tenth of a second
def _match(config: ViTConfig, target: int, tolerance: float) -> ViTConfig:
    """Shrink the width and refit the MLP until the parameter count is within `tolerance`, a fraction, of `target`.

    The count is linear in `mlp_dim`, so two counts per width give the best fit. Of all fits, those that leave
    the MLP at least half its units come first, then those that change width and MLP by the smallest factors.
    A ViT already within tolerance, as with the large embeddings of large images, is not changed. Narrower widths for
    which its projection does not exist, such as butterfly networks of 6 features, are skipped.
    """
    if abs(count_parameters(config) - target) <= tolerance * target:
        return config
    fits = []
    for dim in range(config.dim, 0, -config.heads):
        try:
            first, second = (count_parameters(replace(config, dim=dim, mlp_dim=m)) for m in (1, 2))
        except (CircuitError, ModelError):  # not at the full width, which was counted above
            continue
        mlp_dim = max(1, 1 + round((target - first) / (second - first)))
        shrunk = replace(config, dim=dim, mlp_dim=mlp_dim)
        if abs(count_parameters(shrunk) - target) <= tolerance * target:
            fits.append(shrunk)
    if not fits:
        raise ModelError(
            f"No ViT of width up to {config.dim} with {config.heads} head(s) and the {config.projection.kind} "
            f"projection comes within {tolerance:.0%} of {target} parameters; choose another size."
        )

    def distortion(fit: ViTConfig) -> tuple[bool, float]:
        factor = abs(log(fit.dim / config.dim)) + abs(log(fit.mlp_dim / config.mlp_dim))
        return 2 * fit.mlp_dim < config.mlp_dim, factor

    return min(fits, key=distortion)
