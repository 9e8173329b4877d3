"""Guard the process's global state against the components that a cell loads.

Otherwise a module that sets torch's default dtype on import, or a factory that draws random numbers, could
give one optimizer of a comparison a different starting point from the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Self, overload

import numpy as np
import torch

from xbench.components import registry
from xbench.components.registry import Kind
from xbench.components.specs import DatasetSpec, ModelSpec, OptimizerSpec, Spec


@dataclass(frozen=True)
class Generators:
    """States of the random number generators that a component may use.

    They are torch's (for the CPU, and for the current device if CUDA is in use), Python's `random` and
    NumPy's global one.
    """

    torch_state: torch.Tensor
    cuda_state: torch.Tensor | None
    numpy_state: Any
    python_state: Any

    @classmethod
    def now(cls) -> Self:
        """Read the current states."""
        cuda_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), cuda_state, np.random.get_state(), random.getstate())

    @classmethod
    def from_plain(cls, state: dict[str, Any]) -> Self:
        """Restore the states from the result of `to_plain`."""
        kind, keys, *rest = state["numpy"]
        numpy_state = (kind, keys.numpy().astype(np.uint32), *rest)
        return cls(state["torch"], state["cuda"], numpy_state, state["python"])

    def to_plain(self) -> dict[str, Any]:
        """Convert the states to tensors, numbers, strings, lists and tuples, which a checkpoint may hold."""
        kind, keys, *rest = self.numpy_state
        return {
            "torch": self.torch_state,
            "cuda": self.cuda_state,
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
            "python": self.python_state,
        }

    def restore(self) -> None:
        """Set the generators to these states."""
        torch.set_rng_state(self.torch_state)
        if self.cuda_state is not None:
            torch.cuda.set_rng_state(self.cuda_state)
        np.random.set_state(self.numpy_state)
        random.setstate(self.python_state)


# Copying the state of NumPy's generator takes 90 microseconds, and exchanging the generator takes one.
_SPARE = np.random.MT19937(0)
_numpy_random: Any = np.random  # the stubs of NumPy lack both functions


@contextmanager
def keep_draws_apart() -> Iterator[None]:
    """Give a block, which must seed them first, generators whose draws do not count outside of it.

    This is what `Generators.now` and `restore` do, but ten times as fast. (Of two normal numbers that NumPy's
    old functions draw at once, one that is not used before the block is lost.)
    """
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    cuda_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    numpy_generator = _numpy_random.get_bit_generator()
    _numpy_random.set_bit_generator(_SPARE)
    try:
        yield
    finally:
        _numpy_random.set_bit_generator(numpy_generator)
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state)


def derive_seed(*key: int | str) -> int:
    """Return a seed, from 0, below 2**32, that depends on all parts of a key.

    NumPy's `SeedSequence` does this, too, but takes ten times as long.
    """
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=4).digest())


def seed_generators(seed: int) -> None:
    """Seed the generators that `Generators` reads, as fast as possible.

    `torch.manual_seed` gives the same numbers, but it seeds every CUDA device of the machine, and without a
    CUDA context it records a traceback for later, which takes longer than this whole function.

    Args:
        seed: from 0, below 2**32.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@overload
def load_component(kind: Literal["model"], name: str, import_dirs: Sequence[str] = ()) -> ModelSpec: ...
@overload
def load_component(
    kind: Literal["optimizer"], name: str, import_dirs: Sequence[str] = ()
) -> OptimizerSpec: ...
@overload
def load_component(kind: Literal["dataset"], name: str, import_dirs: Sequence[str] = ()) -> DatasetSpec: ...
@overload
def load_component(kind: Kind, name: str, import_dirs: Sequence[str] = ()) -> Spec: ...
def load_component(kind: Kind, name: str, import_dirs: Sequence[str] = ()) -> Spec:
    """Load the spec of a component, and undo what importing its module does to the process's global state.

    Raises:
        XbenchError: see `registry.load`.
    """
    with guard_globals():
        return registry.load(kind, name, import_dirs)


# Module and name of each of torch's flags. (PyTorch replaces some modules with objects that have further
# attributes, which type checkers cannot see.)
_FLAGS = (
    (torch.backends.cudnn, "enabled"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
    (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    (torch.backends.mkldnn, "enabled"),
    # The older TF32 flags come first, since setting one also sets newer flags.
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends, "fp32_precision"),
    (torch.backends.cudnn, "fp32_precision"),
    (torch.backends.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    (torch.backends.cudnn.rnn, "fp32_precision"),
    (torch.backends.cuda.matmul, "fp32_precision"),
    (torch.backends.mkldnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    (torch.backends.mkldnn.rnn, "fp32_precision"),  # type: ignore[attr-defined]
    (torch.backends.mkldnn.matmul, "fp32_precision"),  # type: ignore[attr-defined]
)


@contextmanager
def guard_globals() -> Iterator[None]:
    """Restore torch's defaults and flags, and all random number generators, when the block is left.

    The defaults are dtype, device and number of threads.
    """
    generators = Generators.now()
    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    grad, anomaly = torch.is_grad_enabled(), torch.is_anomaly_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    flags = [getattr(module, name) for module, name in _FLAGS]
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            # Setting the CPU would leave a mode active that slows down every call.
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        torch.autograd.set_detect_anomaly(anomaly)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_float32_matmul_precision(precision)
        for (module, name), value in zip(_FLAGS, flags, strict=True):
            setattr(module, name, value)
        generators.restore()
