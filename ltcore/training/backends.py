"""Ways to the gradients of R copies of one module, behind one contract.

``grads(batch) -> losses (R,), {name: (R, …)}`` at the back end's own stacked ``params`` and ``buffers``, which the optimiser changes in place;
``forward(x)`` evaluates all copies. Inputs are one tensor (R, …), or a tuple of them for a module that takes several; a module that gives
(output, memory) has its memory, a tuple of tensors, left in ``carried`` for the caller to hand on. ``Loop`` runs copy after copy on views of the stack, each as it would run alone: the default on CPU,
and for modules that vmap refuses. ``Vmap`` stacks any ``nn.Module`` with ``torch.func`` without a line from its author: the default on GPU.
``Chain`` is ``Loop`` for plain LeNets on CPU: the same numbers bit for bit, without autograd's graph.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ltcore.training import chain, supervised

LossFn = Callable[[Tensor, Tensor], Tensor]  # (outputs of one copy, targets) -> scalar
Stack = dict[str, Tensor]  # name -> (R, …)
Inputs = Tensor | tuple[Tensor, ...]  # (R, …) each


class Loop:
    """One bound module per replicate; its parameters and buffers are views of row r of the stack.

    On CPU images are laid out as the module's attribute ``memory_format`` says, where it has one.
    """

    name = "loop"

    def __init__(self, module: nn.Module, params: Stack, buffers: Stack, loss: LossFn):
        self.params, self.buffers, self.loss = params, buffers, loss
        self.replicates, device = len(next(iter(params.values()))), next(iter(params.values())).device
        self.modules = [bind(copy.deepcopy(module).to(device), params, buffers, r) for r in range(self.replicates)]
        self.leaves = [[dict(m.named_parameters())[n] for n in params] for m in self.modules]
        self.layout = getattr(module, "memory_format", torch.preserve_format) if device.type == "cpu" else torch.preserve_format
        many = self.replicates > 1
        self.stacked = {n: torch.empty_like(p) for n, p in params.items()} if many else {}
        self.carried: tuple[Tensor, ...] = ()

    def grads(self, x: Inputs, y: Tensor) -> tuple[Tensor, Stack]:
        """x (R, B, …), y (R, B)."""
        losses, memories = [], []
        for r, (module, leaves) in enumerate(zip(self.modules, self.leaves)):
            out, memory = _parted(self._call(module, x, r))
            memories.append(memory)
            loss = self.loss(out, y[r])
            found = torch.autograd.grad(loss, leaves, materialize_grads=True)
            losses.append(loss.detach())
            if not self.stacked:
                self.carried = tuple(m.detach()[None] for m in memory)
                return loss.detach()[None], {n: g.contiguous()[None] for n, g in zip(self.params, found)}
            for g, n in zip(found, self.params):
                self.stacked[n][r].copy_(g)
        self.carried = _stacked(memories)
        return torch.stack(losses), self.stacked

    @torch.no_grad()
    def forward(self, x: Inputs) -> Tensor:
        """Outputs of every copy in evaluation mode, x (R, B, …)."""
        outs, memories = zip(*(_parted(self._call(module.eval(), x, r)) for r, module in enumerate(self.modules)))
        for module in self.modules:
            module.train()
        self.carried = _stacked(memories)
        return torch.stack(outs)

    def _call(self, module: nn.Module, x: Inputs, r: int) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        if isinstance(x, Tensor):
            return module(x[r].to(memory_format=self.layout))
        return module(*(t[r] for t in x))


def _parted(out: Tensor | tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A module's output and its memory, of which most have none."""
    return out if isinstance(out, tuple) else (out, ())


def _stacked(memories: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack([m.detach() for m in each]) for each in zip(*memories))


class Chain(Loop):
    """Copies of a plain ``LeNet`` under cross-entropy; gradients are written into memory that stays."""

    name = "chain"

    def __init__(self, module: nn.Module, params: Stack, buffers: Stack, loss: LossFn):
        super().__init__(module, params, buffers, loss)
        self.stacked = {n: torch.empty_like(p) for n, p in params.items()}
        self.layers, self.into = ([[(s[w][r], s[b][r]) for w, b in chain.names(module)] for r in range(self.replicates)]
                                  for s in (params, self.stacked))  # fmt: skip
        self.one = torch.ones_like(next(iter(params.values())).flatten()[0])

    def grads(self, x: Tensor, y: Tensor) -> tuple[Tensor, Stack]:
        """x (R, B, …), y (R, B)."""
        losses = [chain.gradients(*row) for row in zip(self.layers, x, y, [self.one] * self.replicates, self.into)]
        return torch.stack(losses), self.stacked


class Vmap:
    """All replicates in one call; buffers (batch norm, counters) are stacked, changed by the pass and kept."""

    name = "vmap"

    def __init__(self, module: nn.Module, params: Stack, buffers: Stack, loss: LossFn):
        self.params, self.buffers = params, buffers
        self.replicates = len(next(iter(params.values())))
        self.body = copy.deepcopy(module).to(next(iter(params.values())).device)
        body = self.body

        def one(p: Stack, b: Stack, x: Inputs, y: Tensor) -> tuple[Tensor, tuple[Stack, tuple[Tensor, ...]]]:
            b = {n: t.clone() for n, t in b.items()}
            out, memory = _parted(functional_call(body, (p, b), _arguments(x)))
            return loss(out, y), (b, memory)

        self._grads = vmap(grad_and_value(one, has_aux=True), randomness="different")
        self.carried: tuple[Tensor, ...] = ()

    def grads(self, x: Inputs, y: Tensor) -> tuple[Tensor, Stack]:
        """x (R, B, …), y (R, B)."""
        grads, (losses, (buffers, memory)) = self._grads(self.params, self.buffers, x, y)
        self.carried = tuple(m.detach() for m in memory)
        for n, b in buffers.items():
            self.buffers[n].copy_(b)
        return losses.detach(), {n: g.contiguous() for n, g in grads.items()}  # as the weights and the optimiser's state are

    @torch.no_grad()
    def forward(self, x: Inputs) -> Tensor:
        """Outputs of every copy in evaluation mode, x (R, B, …)."""
        self.body.eval()
        out, self.carried = vmap(lambda p, b, x: _parted(functional_call(self.body, (p, b), _arguments(x))))(self.params, self.buffers, x)
        self.body.train()
        return out


def _arguments(x: Inputs) -> tuple[Tensor, ...]:
    return (x,) if isinstance(x, Tensor) else x


BACKENDS = {"loop": Loop, "chain": Chain, "vmap": Vmap}


def choose(module: nn.Module, params: Stack, buffers: Stack, loss: LossFn, x: Inputs, y: Tensor, wanted: str | None = None) -> Loop | Vmap:
    """The back end asked for; else vmap for a stack on a GPU, where a probe shows that the module allows it; else copy after copy."""
    if wanted is None:
        first = _arguments(x)[0]
        stack = first.device.type != "cpu" and first.shape[0] > 1
        wanted = "vmap" if stack and _vmap_takes(module, params, buffers, loss, x, y) else _one_by_one(module, params, loss, first)
    return BACKENDS[wanted](module, params, buffers, loss)


def _one_by_one(module: nn.Module, params: Stack, loss: LossFn, x: Tensor) -> str:
    on_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")  # autocast does not see products into memory that stays
    chained = on_cpu and loss is supervised.loss and {n for pair in chain.names(module) for n in pair} == set(params)
    return "chain" if chained else "loop"


def _vmap_takes(module: nn.Module, params: Stack, buffers: Stack, loss: LossFn, x: Inputs, y: Tensor) -> bool:
    """vmap refuses data-dependent branches, boolean indexing and parametrizations with a RuntimeError."""
    try:
        probe = Vmap(module, params, {n: b.clone() for n, b in buffers.items()}, loss)
        probe.grads(x, y)
        probe.forward(x)  # nn.LSTM, for one, is refused only here
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        return False
    return True


def alone(module: nn.Module, params: Stack, buffers: Stack, r: int) -> nn.Module:
    """A module of its own, in evaluation mode, with the weights of row r as they are now and will be."""
    return bind(copy.deepcopy(module).to(next(iter(params.values())).device), params, buffers, r).eval()


def bind(module: nn.Module, params: Stack, buffers: Stack, r: int) -> nn.Module:
    """Makes parameters and buffers of the module views of row r; the optimiser's writes to the stack are seen at once."""
    rows = {name: t[r] for name, t in (params | buffers).items()}
    bound: dict[int, nn.Parameter] = {}  # tied weights stay one parameter
    for name, old in list(module.named_parameters(remove_duplicate=False)):
        if id(old) not in bound:
            bound[id(old)] = nn.Parameter(rows[name], requires_grad=old.requires_grad)
        owner, leaf = _owner(module, name)
        owner._parameters[leaf] = bound[id(old)]
    for name, _ in list(module.named_buffers()):
        if name in rows:  # buffers that are not part of the state (persistent=False) are constants of the module
            owner, leaf = _owner(module, name)
            owner._buffers[leaf] = rows[name]
    return module.train()


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
