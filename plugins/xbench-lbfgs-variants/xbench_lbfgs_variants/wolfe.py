"""L-BFGS for a full batch, with a line search for the strong Wolfe conditions.

Source: D. C. Liu, J. Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", Mathematical
Programming 45 (1989).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.optimizer import ParamsT

from xbench_lbfgs_variants.base import PairOptimizer, check_range
from xbench_lbfgs_variants.line_search import Point, search_line
from xbench_lbfgs_variants.pairs import PairHistory

MAX_SEARCH_EVALUATIONS = 25


class WolfeLBFGS(PairOptimizer):
    """L-BFGS with a strong Wolfe line search, for a batch that is the same in every step.

    The settings have the meanings that they have in `torch.optim.LBFGS`, with
    `line_search_fn = "strong_wolfe"`. Other than there, an iteration ends with the gradient at its new point,
    and the pair is added at once, so no vectors are kept between steps besides the history. If the pairs give
    no direction of descent, or the line search finds no lower point, the history is cleared.

    During a step, it needs memory for four vectors besides the parameters, their gradients and the history.

    Args:
        params: see `PairOptimizer`.
        lr: the first step size that a line search tries, above 0.
        max_iter: maximum number of iterations in a step.
        max_eval: number of evaluations after which a step begins no other iteration; None for 1.25 times
            `max_iter`. (In torch, it also ends a line search, which may then have found no lower point.)
        tolerance_grad: the largest element of a gradient that counts as zero.
        tolerance_change: a step ends at a change of the loss or of the parameters, or at a slope, below it.
        history_size: maximum number of pairs.
        pairs_dtype, pairs_on: see `PairOptimizer`.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        pairs_dtype: str | None = None,
        pairs_on: str = "device",
    ):
        check_range("lr", lr, 0, includes=False)
        check_range("max_iter", max_iter, 1)
        check_range("tolerance_grad", tolerance_grad, 0)
        check_range("tolerance_change", tolerance_change, 0)
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        check_range("max_eval", max_eval, 1)
        own = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
        }
        super().__init__(params, own, history_size, pairs_dtype, pairs_on)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's stub lets every optimizer be stepped without a closure
        self, closure: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Take one step of up to `max_iter` iterations.

        Args:
            closure: function that clears the gradients, computes the loss of the batch (a scalar), leaves its
                gradient in `.grad`, and returns the loss. It is called with gradients enabled.

        Returns:
            The loss at the parameters before the step.
        """
        closure = torch.enable_grad()(closure)
        group, history = self._group, self._open_history()
        first_loss = closure()
        loss, evaluations = float(first_loss), 1
        gradient = self._read_gradient()
        new_gradient, start, direction = (torch.empty_like(gradient) for _ in range(3))
        for iteration in range(group["max_iter"]):
            has_used_up = iteration > 0 and evaluations >= group["max_eval"]
            if has_used_up or _find_largest(gradient) <= group["tolerance_grad"]:
                break
            slope = self._choose_direction(gradient, history, out=direction)
            if slope > -group["tolerance_change"]:
                break
            first = group["lr"]
            if not len(history):
                first *= min(1.0, 1 / float(torch.linalg.vector_norm(gradient, ord=1)))
            min_width = group["tolerance_change"] / _find_largest(direction)
            line = _Line(self, closure, self._read_parameters(out=start), direction, new_gradient)
            point = search_line(
                line.evaluate, Point(0.0, loss, slope), first, MAX_SEARCH_EVALUATIONS, min_width
            )
            line.end_at(point)
            evaluations += line.evaluations
            if point.t == 0:
                if not len(history):
                    break
                history.clear()
                continue
            step = self._read_parameters(out=direction).sub_(start)
            history.add(step, gradient.neg_().add_(new_gradient))
            gradient, new_gradient = new_gradient, gradient
            change = min(abs(point.loss - loss), _find_largest(step))
            loss = point.loss
            if change < group["tolerance_change"]:
                break
        return first_loss

    @staticmethod
    def _choose_direction(gradient: torch.Tensor, history: PairHistory, out: torch.Tensor) -> float:
        """Write a direction of descent into a vector, and return its product with the gradient.

        The history is cleared if rounding errors have made its direction one of ascent.
        """
        torch.neg(gradient, out=out)
        if len(history):
            history.multiply(out, history.newest_scale())
        slope = float(out.dot(gradient))
        if not slope < 0 and len(history):
            history.clear()
            torch.neg(gradient, out=out)
            slope = float(out.dot(gradient))
        return slope

    def fill_history(self) -> None:
        """Fill the history, and limit the next step to two iterations, which need as much memory as more."""
        super().fill_history()
        self._group["max_iter"] = min(self._group["max_iter"], 2)
        self._group["max_eval"] = min(self._group["max_eval"], 8)


def _find_largest(vector: torch.Tensor) -> float:
    """Return the largest absolute value, without a vector of all of them."""
    return float(torch.linalg.vector_norm(vector, ord=torch.inf))


class _Line:
    """The points from which a line search chooses.

    Args:
        optimizer: the optimizer whose parameters are moved.
        closure: computes the loss at the parameters, and their gradients.
        start: the parameters at distance 0.
        direction: the direction.
        gradient: vector that receives the gradient at each point.

    Attributes:
        evaluations: number of calls of the closure.
    """

    def __init__(
        self,
        optimizer: WolfeLBFGS,
        closure: Callable[[], torch.Tensor],
        start: torch.Tensor,
        direction: torch.Tensor,
        gradient: torch.Tensor,
    ):
        self._optimizer, self._closure = optimizer, closure
        self._start, self._direction, self._gradient = start, direction, gradient
        self._last = 0.0
        self.evaluations = 0

    def evaluate(self, t: float) -> Point:
        """Move the parameters to a distance, and compute loss and gradient there."""
        self._optimizer._write_parameters(self._start)
        self._optimizer._move(self._direction, t)
        loss = float(self._closure())
        self._optimizer._read_gradient(out=self._gradient)
        self._last = t
        self.evaluations += 1
        return Point(t, loss, float(self._gradient.dot(self._direction)))

    def end_at(self, point: Point) -> None:
        """Leave the parameters at a point, with its gradient unless that is the start."""
        if point.t == 0:
            self._optimizer._write_parameters(self._start)
        elif point.t != self._last:
            self.evaluate(point.t)  # only the gradient of the last point was kept
