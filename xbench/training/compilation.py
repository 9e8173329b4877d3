"""Compile a cell's model with `torch.compile`, for every batch shape that the cell will meet.

Graphs are compiled for fixed shapes before the first step, so that no step is slowed by a compilation, and
before the limits on the process's memory are calibrated. Compiling itself runs outside of the limit, because
the C++ compiler is a child process, which would inherit it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from xbench.errors import XbenchError
from xbench.memory.limits import lift_host_limit
from xbench.memory.processor import processor_name
from xbench.storage.cache import load, save
from xbench.storage.paths import cache_dir
from xbench.training.evaluation import evaluate
from xbench.training.events import Compiling
from xbench.training.frozen import set_training
from xbench.training.global_state import guard_globals

if TYPE_CHECKING:
    from xbench.training.loop import Trainer

# Namespace of xbench's cache for the seconds that compiling a graph took.
_TIMES = "compile time"
# Inductor's folder for compiled graphs; torch's default may be in a home folder that cannot be written to.
_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# A model is compiled for each combination of shape and mode. torch's own limit is 8, after which it would run
# the model without compiling it.
_MAX_GRAPHS = 1 << 16


@dataclass
class Compilation:
    """Graphs that were compiled for a model, and the time that it took.

    Attributes:
        seconds: seconds to compile all shapes without a cache. A graph from the cache counts with the time of
            the process that compiled it.
        graphs: number of graphs, each of which has a forward and, for training, a backward pass.
        untimed: number of cached graphs for which that time is not known.
        late_s: seconds spent on compiling after that, which count as training or evaluation.
    """

    seconds: float = 0.0
    graphs: int = 0
    untimed: int = 0
    late_s: float = 0.0
    _saved_s: float = 0.0
    _is_ready: bool = False

    def add(self, key: str, seconds: float, was_cached: bool) -> None:
        """Count a graph.

        Args:
            key: identifies the graph.
            seconds: seconds to compile it or to read it from the cache.
        """
        self.graphs += 1
        if self._is_ready:
            self.late_s += seconds
        if not was_cached:
            save(_TIMES, key, {"seconds": seconds})
        elif (compiled := load(_TIMES, key)) is not None:
            self._saved_s += compiled["seconds"] - seconds
        else:
            self.untimed += 1

    def finish(self, seconds: float) -> None:
        """Note that all expected shapes are compiled, which took some seconds in this process."""
        self.seconds, self._is_ready = seconds + self._saved_s, True


def compile_model(model: nn.Module) -> Compilation:
    """Let a model's forward pass be compiled for each new shape, mode or state when it is first called.

    The names of parameters do not change.

    Returns:
        An account of what is compiled, which is kept up to date.
    """
    with lift_host_limit():  # the compiler's modules take more than 200 MB
        compile_graph = _load_compiler()
    compilation = Compilation()

    def compile_unlimited(graph: Any, inputs: Any) -> Any:
        started, (hits, misses) = time.perf_counter(), count_cached()
        with lift_host_limit():
            compiled = compile_graph(graph, inputs)
        seconds, (hits_now, misses_now) = time.perf_counter() - started, count_cached()
        compilation.add(_identify(graph, inputs), seconds, hits_now > hits and misses_now == misses)
        return compiled

    model.compile(backend=compile_unlimited, dynamic=False)
    return compilation


def _load_compiler() -> Callable[[Any, Any], Any]:
    """Import Inductor and configure it for this process; return the function that compiles a graph."""
    if torch.version.cuda and not torch.cuda.is_initialized():
        # It warns that there is no CUDA device.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    os.environ.setdefault(_CACHE_VARIABLE, str(cache_dir() / "inductor"))
    import torch._inductor.config as inductor

    inductor.compile_threads = 1  # before the next import, which would start worker processes
    # Random numbers are drawn as they are without compiling: dropout has the same masks.
    inductor.fallback_random = True
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch
    from torch._inductor.compile_fx import compile_fx

    # Otherwise the backward pass would be compiled within the first one.
    functorch.force_non_lazy_backward_lowering = True
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = _MAX_GRAPHS
    dynamo.fail_on_recompile_limit_hit = True
    torch.compiler.reset()
    return compile_fx


def _identify(graph: Any, inputs: Any) -> str:
    """Return a key of the time to compile a graph: its code, its inputs, and what else it is compiled for."""
    tensors = [
        (tuple(t.shape), t.stride(), str(t.dtype), str(t.device), t.requires_grad)
        for t in inputs
        if isinstance(t, torch.Tensor)
    ]
    conditions = (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )
    machine = (torch.__version__, processor_name(), torch.get_num_threads())
    return hashlib.sha256(repr((graph.code, tensors, conditions, machine)).encode()).hexdigest()


def count_cached() -> tuple[int, int]:
    """Return how many passes of graphs this process found in the cache on disk, and how many it did not."""
    from torch._dynamo.utils import counters

    return counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"]


@contextmanager
def run_uncompiled(model: nn.Module) -> Iterator[None]:
    """Call a model without its compiled graphs within the context."""
    compiled, model._compiled_call_impl = getattr(model, "_compiled_call_impl", None), None
    try:
        yield
    finally:
        model._compiled_call_impl = compiled


def compile_trainer(trainer: Trainer, evaluated: Collection[int]) -> None:
    """Compile a trainer's model, by running it forwards in every way in which the trainer will run it.

    The backward pass is compiled, but not run: an optimizer's hooks may update parameters in it. So the
    model's parameters and buffers do not change, and neither do generators.

    Args:
        evaluated: numbers of rows that the model will be evaluated on at once.

    Raises:
        XbenchError: nothing was compiled.
        Stopped: the run was asked to stop.
    """
    started, model = time.perf_counter(), trainer.model
    trainer.compilation = compilation = compile_model(model)
    runs = [
        *((_begin_step, size) for size in sorted(_list_step_sizes(trainer), reverse=True)),
        *((_evaluate, size) for size in sorted(evaluated, reverse=True)),
        *((_begin_gradient, size) for size in sorted(_list_gradient_sizes(trainer), reverse=True)),
    ]
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    with guard_globals():
        for done, (run, size) in enumerate(runs):
            trainer.send(Compiling(done, len(runs)))
            run(trainer, np.resize(trainer.split.train, size))
            trainer.checkpoints.raise_if_stopping()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    set_training(model)
    if not compilation.graphs:
        raise XbenchError(
            "compile = true has no effect: torch.compile found nothing to compile, or the task never calls "
            "the model itself, but other functions of it",
            hint="let the task call `model(...)`, or leave out compile",
        )
    compilation.finish(time.perf_counter() - started)


def list_evaluation_sizes(trainer: Trainer) -> set[int]:
    """Return the numbers of rows that a whole training run evaluates at once."""
    split, chunk = trainer.split, trainer.evaluation_chunk
    sizes: set[int] = set()
    for rows in (split.validation, split.test, np.unique(split.train)):
        # A task that is not additive fills up the last chunk.
        rest = len(rows) % chunk if trainer.objective.task.additive or len(rows) < chunk else 0
        sizes |= {chunk if len(rows) >= chunk else 0, rest}
    return sizes - {0}


def _list_step_sizes(trainer: Trainer) -> set[int]:
    """Return the numbers of rows of all parts of a training run's batches."""
    size, part = trainer.batch_size, trainer.micro_batch
    batches = {size} if len(trainer.split.train) >= size else set()
    if not trainer.settings.drop_last:
        batches.add(len(trainer.split.train) % size)
    return {part for batch in batches if batch >= part} | {batch % part for batch in batches} - {0}


def _list_gradient_sizes(trainer: Trainer) -> set[int]:
    """Return the numbers of rows of which a gradient is measured in evaluation mode."""
    if trainer.objective.task.optimum is None or not trainer.objective.covers(trainer.split.train):
        return set()
    rows, chunk = len(trainer.split.train), trainer.evaluation_chunk
    return {chunk if rows >= chunk else 0, rows % chunk} - {0}


def _begin_step(trainer: Trainer, rows: np.ndarray) -> None:
    set_training(trainer.model)
    _compute_loss(trainer, rows)


def _begin_gradient(trainer: Trainer, rows: np.ndarray) -> None:
    trainer.model.eval()
    _compute_loss(trainer, rows)


def _compute_loss(trainer: Trainer, rows: np.ndarray) -> None:
    objective = trainer.objective
    objective.part_loss(trainer.model, trainer.loader.load(rows), objective.divisor(rows))


def _evaluate(trainer: Trainer, rows: np.ndarray) -> None:
    evaluate(trainer.model, trainer.loader, trainer.objective, rows, len(rows), "test", collects=True)
