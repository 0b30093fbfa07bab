"""SGD, Adam and RMSprop on stacks: every tensor is (R, …), the learning rate a number or one per replicate.

Where all replicates share the rate, PyTorch's fused kernels do the same arithmetic in one pass over memory (the update is
elementwise, so a stack is just a longer tensor). Gradients arrive already masked and weight decay acts on weights that are 0
where pruned, so pruned weights and their optimiser state stay exactly 0.

References: Kingma & Ba 2015 (Adam); Sutskever et al. 2013 and PyTorch's ``SGD`` (momentum: v = μv + g, w = w − ηv; the first v is g);
Tieleman & Hinton 2012 and PyTorch's ``RMSprop`` (v = αv + (1 − α)g², w = w − ηg / (√v + ε)).
"""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltcore.recipe import Optimizer

Tensors = Mapping[str, Tensor]
Rate = float | Tensor  # a number, a 0-d tensor (captured steps) or (R,)


def learning_rate(spec: Optimizer, t: int) -> float:
    """The rate at iteration t (0-based): linear warm-up from 0, then the schedule.

    During warm-up iteration t runs at lr × t / warmup_it; drops count from iteration 0, warm-up or not.
    """
    warm = t / spec.warmup_it if t < spec.warmup_it else 1.0
    if spec.schedule == "inverse-sqrt" and t > spec.warmup_it:
        warm = (max(spec.warmup_it, 1) / t) ** 0.5
    return spec.lr * warm * spec.factor ** sum(t >= drop for drop in spec.drops_it)


def init(spec: Optimizer, params: Tensors) -> dict[str, Tensor]:
    """State before the first step: zeros, and the number of steps taken, (1,)."""
    first = next(iter(params.values()))
    state = {f"{slot}/{name}": torch.zeros_like(p) for slot in _slots(spec) for name, p in params.items()}
    return {"step": torch.zeros((), dtype=torch.float32, device=first.device), **state}


def _slots(spec: Optimizer) -> tuple[str, ...]:
    """What is kept of each parameter, in the order in which the fused kernels take it."""
    return {"adam": ("m", "v"), "sgd": ("m",) if spec.momentum else (), "rmsprop": ("v",)}[spec.name]


def update(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors, lr: Rate) -> None:
    """One step in place."""
    kernels = STACKED if isinstance(lr, Tensor) and lr.dim() == 1 else FUSED
    kernels[spec.name](spec, params, grads, state, lr)


def _lists(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors) -> list[list[Tensor]]:
    """Parameters, gradients and slots as lists for a fused kernel.

    On CPU the kernels round a tensor's last few elements otherwise than the rest: given whole, a stack would not be its rows alone, bit for bit.
    """
    lists = [list(params.values()), [grads[n] for n in params], *([state[f"{slot}/{n}"] for n in params] for slot in _slots(spec))]
    first = lists[0][0]
    if first.device.type == "cpu" and len(first) > 1:
        return [[row for t in tensors for row in t] for tensors in lists]
    return lists


def _adam_fused(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors, lr: Rate) -> None:
    state["step"].add_(1)
    lists = _lists(spec, params, grads, state)
    torch._fused_adam_(
        *lists, [], [state["step"]] * len(lists[0]), lr=lr, beta1=spec.betas[0], beta2=spec.betas[1],
        weight_decay=spec.weight_decay, eps=spec.eps, amsgrad=False, maximize=False,
    )  # fmt: skip


def _sgd_fused(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors, lr: Rate) -> None:
    state["step"].add_(1)
    lists = _lists(spec, params, grads, state)
    torch._fused_sgd_(
        *lists, *([] if spec.momentum else [[]]), lr=lr, momentum=spec.momentum, weight_decay=spec.weight_decay,
        dampening=0.0, nesterov=False, maximize=False, is_first_step=False,  # the first v is g: the state begins with zeros
    )  # fmt: skip


def _adam_stacked(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors, lr: Rate) -> None:
    b1, b2 = spec.betas
    state["step"].add_(1)
    step = state["step"].double()
    correct1, correct2 = 1 - b1**step, 1 - b2**step
    for n, p in params.items():
        g = grads[n] + spec.weight_decay * p if spec.weight_decay else grads[n]
        m, v = state[f"m/{n}"].lerp_(g, 1 - b1), state[f"v/{n}"].mul_(b2).addcmul_(g, g, value=1 - b2)
        p.sub_(_column(lr / correct1, p) * m / ((v / correct2.to(v.dtype)).sqrt_() + spec.eps))


def _sgd_stacked(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors, lr: Rate) -> None:
    state["step"].add_(1)
    for n, p in params.items():
        g = grads[n] + spec.weight_decay * p if spec.weight_decay else grads[n]
        if spec.momentum:
            g = state[f"m/{n}"].mul_(spec.momentum).add_(g)
        p.sub_(_column(lr, p) * g)


def _rmsprop(spec: Optimizer, params: Tensors, grads: Tensors, state: Tensors, lr: Rate) -> None:
    """There is no fused kernel for it."""
    state["step"].add_(1)
    for n, p in params.items():
        g = grads[n] + spec.weight_decay * p if spec.weight_decay else grads[n]
        v = state[f"v/{n}"].mul_(spec.alpha).addcmul_(g, g, value=1 - spec.alpha)
        p.sub_((_column(lr, p) * g).div_(v.sqrt().add_(spec.eps)))  # in place: fewer tensors of the size of the weights


def _column(lr: Rate, p: Tensor) -> Rate:
    """(R,) as (R, 1, …) beside p of (R, …); a rate that all share as it is."""
    return lr.to(p.dtype).reshape(-1, *[1] * (p.dim() - 1)) if isinstance(lr, Tensor) and lr.dim() else lr


FUSED = {"adam": _adam_fused, "sgd": _sgd_fused, "rmsprop": _rmsprop}
STACKED = {"adam": _adam_stacked, "sgd": _sgd_stacked, "rmsprop": _rmsprop}
