"""Optimizers that break one rule of the contract each, and one that breaks none."""

from __future__ import annotations

import os
import random
import time

import torch

from xbench import Unsupported


class Descent(torch.optim.Optimizer):
    """Gradient descent whose parts can be overridden."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @property
    def parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    def step(self, closure):
        loss = closure()
        with torch.no_grad():
            self.descend()
        return loss

    def descend(self):
        for p in self.parameters:
            p.add_(p.grad, alpha=-self.param_groups[0]["lr"])


class Polyak(Descent):
    """Takes its step size from the loss."""

    def step(self, closure):
        loss = closure()
        self.param_groups[0]["lr"] = (
            0.1 * float(loss) / sum(float(p.grad.square().sum()) for p in self.parameters)
        )
        with torch.no_grad():
            self.descend()
        return loss


class Momentum(Descent):
    def descend(self):
        for p in self.parameters:
            state = self.state[p]
            state["sum"] = state.get("sum", torch.zeros_like(p)) + p.grad
            p.add_(state["sum"], alpha=-self.param_groups[0]["lr"])


class WithNorms(Momentum):
    """Keeps the norm of each gradient, all in one storage, and the number of steps."""

    def descend(self):
        super().descend()
        norms = torch.stack([p.grad.norm() for p in self.parameters])
        for place, p in enumerate(self.parameters):
            self.state[p].update(norm=norms[place], step=torch.zeros(()))


class WithView(Descent):
    """Keeps one element of each gradient, and thereby the whole of it."""

    def descend(self):
        super().descend()
        for p in self.parameters:
            self.state[p]["first"] = p.grad.clone().flatten()[0]


class Ema(Momentum):
    """Momentum with a setting that is not in its defaults."""

    def __init__(self, params, lr=0.1, buffers=1):
        super().__init__(params, lr)


class Idle(Descent):
    def descend(self):
        pass


class Unseeded(Descent):
    """Draws from the operating system."""

    def descend(self):
        super().descend()
        for p in self.parameters:
            p.mul_(1 + 1e-3 * int.from_bytes(os.urandom(4), "big") / 2**32)


class Drawing(Descent):
    """Draws from the generators of torch and Python in each step."""

    def descend(self):
        super().descend()
        for p in self.parameters:
            p.add_(torch.randn_like(p.to_dense()), alpha=1e-4 * random.random())


class Reseeding(Descent):
    def descend(self):
        super().descend()
        torch.manual_seed(0)


class DrawingAtFirst(Descent):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.param_groups[0]["lr"] = lr * (1 + torch.rand(()).item())


class Forgetful(Descent):
    """Counts its steps outside of its state dict."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.count = 0

    def descend(self):
        self.count += 1
        for p in self.parameters:
            p.add_(p.grad, alpha=-0.1 / self.count)


class Odd:
    """An object that a checkpoint cannot hold."""


class Unsavable(Descent):
    def state_dict(self):
        return super().state_dict() | {"odd": Odd()}


class Growing(Descent):
    """Keeps the gradients of all steps."""

    def descend(self):
        for p in self.parameters:
            self.state[p].setdefault("seen", []).append(p.grad.clone())
        super().descend()


class Every(Descent):
    """Makes a matrix at every fifth step."""

    def descend(self):
        for p in self.parameters:
            state = self.state[p]
            state["step"] = state.get("step", 0) + 1
            if state["step"] % 5 == 0:
                state["matrix"] = p.grad.clone()
        super().descend()


class NeedsMatrices(Descent):
    """Fails on a parameter without dimensions."""

    def descend(self):
        for p in self.parameters:
            p.sub_(p.grad / (1 + len(p.grad)))


class Halving(Descent):
    """Halves its step until the loss is lower than before."""

    def step(self, closure):
        loss = closure()
        direction = [p.grad.clone() for p in self.parameters]
        length = 64.0
        with torch.no_grad():
            for p, d in zip(self.parameters, direction, strict=True):
                p.sub_(d, alpha=length)
            while length > 1e-3 and closure() >= loss:
                for p, d in zip(self.parameters, direction, strict=True):
                    p.add_(d, alpha=length / 2)
                length /= 2
        return loss


class Insisting(Descent):
    """Halves its step for ever, if no loss is lower than before."""

    def step(self, closure):
        loss = closure()
        direction = [p.grad.clone() for p in self.parameters]
        length = 1.0
        with torch.no_grad():
            for p, d in zip(self.parameters, direction, strict=True):
                p.sub_(d, alpha=length)
            while closure() >= loss:
                for p, d in zip(self.parameters, direction, strict=True):
                    p.add_(d, alpha=length / 2)
                length /= 2
        return loss


class Strict(Descent):
    """Raises if a step does not lower the loss."""

    def step(self, closure):
        loss = super().step(closure)
        if closure() > loss:
            raise ValueError("the loss rises")
        return loss


class Raising(Descent):
    """Raises at the tenth step."""

    def descend(self):
        super().descend()
        state = self.state[self.parameters[0]]
        state["step"] = state.get("step", 0) + 1
        if state["step"] == 10:
            raise ValueError("no tenth step")


class Choosy(Descent):
    """Supports models with exactly two parameters only."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        if len(self.parameters) != 2:
            raise Unsupported(f"needs 2 parameters, not {len(self.parameters)}")


class DenseOnly(Descent):
    """Does not support embeddings alone."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        if len(self.parameters) == 1 and self.parameters[0].shape != (2, 3):
            raise Unsupported("needs more than one parameter")


class RaisingAtOnce(Descent):
    def descend(self):
        raise ValueError("no first step")


class Exact(Descent):
    """Fails if gradients were clipped to a small norm."""

    def descend(self):
        if max(p.grad.abs().max() for p in self.parameters) < 0.01:
            raise ValueError("these gradients are too short")
        super().descend()


class Newton(Descent):
    """Multiplies each gradient by the Hessian."""

    def step(self, closure):
        loss = closure()
        gradients = [p.grad for p in self.parameters]
        products = torch.autograd.grad(gradients, self.parameters, [g.detach() for g in gradients])
        with torch.no_grad():
            for parameter, product in zip(self.parameters, products, strict=True):
                parameter -= 1e-3 * product
        return loss


class Fused:
    """Updates each parameter as soon as its gradient is there."""

    def __init__(self, model, lr=0.1):
        self.lr = lr
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self.update)

    @torch.no_grad()
    def update(self, parameter):
        parameter.add_(parameter.grad, alpha=-self.lr)
        parameter.grad = None

    def step(self, closure):
        loss = closure.loss()
        loss.backward()
        return loss.detach()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Dying(Descent):
    """Ends its process at the tenth step."""

    count = 0

    def descend(self):
        super().descend()
        type(self).count += 1
        if self.count == 10:
            os._exit(3)


class Hanging(Descent):
    """Sleeps at the tenth step."""

    count = 0

    def descend(self):
        super().descend()
        type(self).count += 1
        if self.count == 10:
            time.sleep(3600)


class UnseededHalving(Halving):
    """Does not repeat, and calls the closure several times a step."""

    def step(self, closure):
        loss = super().step(closure)
        with torch.no_grad():
            for p in self.parameters:
                p.mul_(1 + 1e-3 * int.from_bytes(os.urandom(4), "big") / 2**32)
        return loss


class Exploding(Descent):
    """Diverges in the fifth step."""

    def descend(self):
        super().descend()
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 5:
            for p in self.parameters:
                p.fill_(torch.inf)


class ExplodingTwice(Exploding):
    """Diverges, and calls the closure twice a step."""

    def step(self, closure):
        loss = super().step(closure)
        closure()
        return loss
