"""AdamW with little overhead, for models whose steps take a few milliseconds, and for stacks of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPS = 1e-8
_OPTIONS: dict[str, Any] = {
    "betas": BETAS,
    "eps": EPS,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": True,
    "decoupled_weight_decay": True,
}


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

    def set_lr(self, lr: float) -> None:
        """Take the next steps at this rate."""
        for group in self.param_groups:
            group["lr"] = lr

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
                _OPTIONS | group | {"params": [numbers[parameter] for parameter in group["params"]]}
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
        self.state = {}
        for number, state in saved["state"].items():
            for name, value in self._start(parameters[number]).items():  # which are laid out like the parameter
                value.copy_(state[name])
        for group, stored in zip(self.param_groups, saved["param_groups"], strict=True):
            group.update(lr=stored["lr"], weight_decay=stored["weight_decay"])


class StackedAdamW:
    """AdamW for a stack of m models: each takes the steps of `AdamW`, at a rate and with a decay of its own.

    `decayed` and `others` are the stack's parameters `(m, …)`, of which the first are subject to weight decay; they
    become views of one tensor `(m, p)`, so that a step is the same few operations whatever the model is made of. All
    are elementwise, and rounded once: no model's bits depend on the others, or on which of them take the step.
    """

    def __init__(
        self, decayed: Sequence[nn.Parameter], others: Sequence[nn.Parameter], *, weight_decay: Sequence[float]
    ) -> None:
        self.parameters = [*decayed, *others]
        m = len(weight_decay)
        self._shapes = [parameter.shape[1:] for parameter in self.parameters]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._decayed = sum(self._sizes[: len(decayed)])
        self._numbers = list(range(len(decayed))), list(range(len(decayed), len(self.parameters)))
        self._values = torch.cat([parameter.detach().reshape(m, -1) for parameter in self.parameters], dim=1)
        for parameter, view in zip(self.parameters, self._split(self._values), strict=True):
            parameter.data = view
        self._means, self._squares = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._steps = [0] * m
        self._weight_decay, self._lr = list(weight_decay), [0.0] * m

    def _split(self, values: Tensor) -> list[Tensor]:
        """Return views of a tensor `(…, p)` in the shapes of the parameters."""
        parts = values.split(self._sizes, dim=-1)
        return [
            part.unflatten(-1, shape) if shape else part[..., 0]
            for part, shape in zip(parts, self._shapes, strict=True)
        ]

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    def set_lr(self, lr: Mapping[int, float]) -> None:
        """Take the next steps of the models at these places at these rates."""
        for place, rate in lr.items():
            self._lr[place] = rate

    def gradient(self) -> Float[Tensor, "m p"]:
        """Return the gradients of all parameters, 0 for those without one."""
        m = len(self._steps)
        found = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parameters]
        return torch.cat([gradient.reshape(m, -1) for gradient in found], dim=1)

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, "m p"], places: Sequence[int]) -> None:
        """Take one step with the models at `places`, each by its row of the gradient."""
        for place in places:
            self._steps[place] += 1
        if len(places) == len(self._steps):
            self._step(slice(None), gradient)
        else:
            for place in places:
                self._step(slice(place, place + 1), gradient)

    def _step(self, rows: slice, gradient: Tensor) -> None:
        def column(numbers: list[float]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float64).to(gradient)[:, None]

        values, means, squares = self._values[rows], self._means[rows], self._squares[rows]
        gradient, lr, steps = gradient[rows], self._lr[rows], self._steps[rows]
        kept = [1.0 - rate * decay for rate, decay in zip(lr, self._weight_decay[rows], strict=True)]
        values[:, : self._decayed].mul_(column(kept))
        means.mul_(BETAS[0]).add_(gradient * (1.0 - BETAS[0]))
        squares.mul_(BETAS[1]).add_(gradient.square().mul_(1.0 - BETAS[1]))
        roots = squares.sqrt().div_(column([(1.0 - BETAS[1] ** step) ** 0.5 for step in steps])).add_(EPS)
        rates = column([rate / (1.0 - BETAS[0] ** step) for rate, step in zip(lr, steps, strict=True)])
        values.sub_(means.div(roots).mul_(rates))

    def state_of(self, place: int) -> dict[str, Any]:
        """Return a copy of the state of one model, as `AdamW.state_dict` would of that model alone."""
        means, squares = (self._split(values[place].clone()) for values in (self._means, self._squares))
        step = float(self._steps[place])
        state = {
            number: {"step": torch.tensor(step), "exp_avg": mean, "exp_avg_sq": square}
            for number, (mean, square) in enumerate(zip(means, squares, strict=True))
        }
        groups = [
            _OPTIONS | {"lr": self._lr[place], "weight_decay": decay, "params": numbers}
            for decay, numbers in ((self._weight_decay[place], self._numbers[0]), (0.0, self._numbers[1]))
        ]
        return {"state": state if step else {}, "param_groups": groups}

    def load_state_of(self, place: int, saved: dict[str, Any]) -> None:
        """Load what `state_of`, or the `state_dict` of `AdamW`, returned for one model.

        Raises `ValueError` for shapes or types that are not the parameters', and any error for a damaged state.
        """
        numbers = [*self._numbers[0], *self._numbers[1]]
        states = [saved["state"][number] for number in numbers] if saved["state"] else []
        for name, rows in (("exp_avg", self._means), ("exp_avg_sq", self._squares)):
            for number, state, view in zip(numbers, states, self._split(rows[place]), strict=bool(states)):
                if state[name].shape != view.shape or state[name].dtype != view.dtype:
                    raise ValueError(f"{name} of parameter {number} has another shape or dtype than the parameter")
                view.copy_(state[name])
        steps = {float(state["step"]) for state in states}
        if len(steps) > 1:
            raise ValueError(f"Parameters of one model have taken different numbers of steps: {steps}")
        self._steps[place] = int(max(steps, default=0.0))
