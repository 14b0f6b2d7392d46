"""AdamW with little overhead, for models whose steps take a few milliseconds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with torch's fused kernel and `state_dict`, and less overhead.

    Takes the steps of `torch.optim.AdamW(…, fused=True)`, and each of the two reads the other's state. `torch.optim`'s
    classes import torch's compiler, for over a second, and spend a third of a millisecond per step on hooks.
    `param_groups` are dictionaries of `params`, `lr` and `weight_decay`.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float) -> None:
        self.param_groups = [{"lr": lr, **group} for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, group after group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with every parameter that has a gradient."""
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state.get(parameter) or self._start(parameter) for parameter in params]
            adamw(
                params,
                [parameter.grad for parameter in params],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=EPS,
                maximize=False,
            )

    def _start(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        self.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return self.state[parameter]

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state, in the format of `torch.optim`: parameters by number, group after group."""
        numbers = {parameter: number for number, parameter in enumerate(self.parameters)}
        return {
            "state": {
                numbers[parameter]: {name: value.clone() for name, value in state.items()}
                for parameter, state in self.state.items()
            },
            "param_groups": [
                {
                    "betas": BETAS,
                    "eps": EPS,
                    "amsgrad": False,
                    "maximize": False,
                    "foreach": None,
                    "capturable": False,
                    "differentiable": False,
                    "fused": True,
                    "decoupled_weight_decay": True,
                    **group,
                    "params": [numbers[parameter] for parameter in group["params"]],
                }
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Load what `state_dict`, or that of torch's AdamW, returned for the same parameters.

        Raises `ValueError` for shapes or types that are not the parameters', and any error for a damaged state.
        """
        parameters = self.parameters
        for number, state in saved["state"].items():
            for name in ("exp_avg", "exp_avg_sq"):
                if state[name].shape != parameters[number].shape or state[name].dtype != parameters[number].dtype:
                    raise ValueError(f"{name} of parameter {number} has another shape or dtype than the parameter")
        self.state = {
            parameters[number]: {
                name: state[name].detach().to(parameters[number].device, copy=True)
                for name in ("step", "exp_avg", "exp_avg_sq")
            }
            for number, state in saved["state"].items()
        }
        for group, stored in zip(self.param_groups, saved["param_groups"], strict=True):
            group.update(lr=stored["lr"], weight_decay=stored["weight_decay"])
