"""Factories of heavyball's optimizers, with the settings that a suite can write."""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import heavyball
import torch
import torch._dynamo  # which heavyball imports in its first step otherwise, where memory is measured
from heavyball import utils

from xbench_heavyball.catalogue import WRAPPER

# Parameters of heavyball's classes that are not settings.
_HIDDEN = {
    "compile_step",  # compiles the whole step: see `compiled`
    "fallback_to_finite_differences",  # chosen by the variant, like the next three
    "finite_differences",
    "hessian_approx",
    "hvp_interval",
    "kwargs",
    "orig_shapes",  # for sharded parameters
    "param_ecc",  # converts the model to bfloat16
    "precond_grad_accum",  # a step count that it needs is not in the state dict
    "precond_scheduler",
    "use_precond_schedule",  # fails in the first step
}

# Parameters that have no effect in the optimizers of these names.
WITHOUT_EFFECT = {
    "AdamC": {"update_clipping"},
    "HeavyKLShampoo": {"beta2_scale", "palm"},
    "HeavySOAPNAdam": {"decoupled_weight_decay"},
    "HeavySOLP": {"eps"},
    "HyperBallAdamW": {"update_clipping"},
    "KLShampoo": {"beta2_scale", "palm"},
    "LATHER": {"momentum_into_precond_update"},
    "LaProp": {"eps"},
    "MSAMLaProp": {"r", "update_clipping", "weight_lr_power"},
    "Muon": {"beta2_scale", "eps", "palm"},
    "MuonLaProp": {"eps"},
    "NAdam": {"cautious_weight_decay"},
    "PSGDLRA": {"momentum_into_precond_update"},
    "PSGDPRO": {"lower_bound_beta"},
    "QSGD": {"lower_bound_beta"},
    "RMSprop": {"r", "weight_lr_power"},
    "SFAdamW": {"update_clipping"},
    "SOAPNAdam": {"decoupled_weight_decay"},
    "SOLP": {"eps"},
    "SUDSAdamW": {"eps"},
    "Scion": {"eps"},
    "SignLaProp": {"eps"},
    "UnscaledAdamW": {"eps"},
}

# The type of each setting whose annotation does not say which values it takes, and the default of those whose
# default is a sentinel. `"default"` and None choose what the class chooses.
_CLIPPING: tuple[Any, Any] = (str, "default")
_CORRECTIONS = Literal["bf16+8", "bf16+16", "fp16+8", "fp16+16"] | None
_DTYPES = Literal["float32", "bfloat16", "float16"]
_REPLACED: dict[str, tuple[Any, Any]] = {
    "gradient_clipping": _CLIPPING,
    "update_clipping": _CLIPPING,
    "preconditioner_update_probability": (float | None, None),
    "ecc": (_CORRECTIONS, None),
    "storage_dtype": (_DTYPES, "float32"),
    "q_dtype": (_DTYPES, "float32"),
}

# Of the steps that update the preconditioner, heavyball computes the product with the Hessian in all but one
# of each interval: with the interval 1, which is its default, in none. With this one, in all but the first.
_NEVER = 2**62
_VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "FiniteDifferences": {"hessian_approx": True, "finite_differences": True, "hvp_interval": _NEVER},
    "Hessian": {
        "hessian_approx": True,
        "finite_differences": False,
        "fallback_to_finite_differences": False,
        "hvp_interval": _NEVER,
    },
}


def make_factory(name: str, variant: str = "") -> Callable[..., torch.optim.Optimizer]:
    """Make the factory of an optimizer.

    All factories have a setting `compiled`, False by default: whether heavyball may compile its functions.
    Otherwise they run as they are; heavyball's global `compile_mode` is changed only during steps.

    Args:
        name: a class of heavyball.
        variant: a variant from the catalogue, `"SAMWrapper"` for the wrapped optimizer, or "".
    """
    cls = getattr(heavyball, name)
    settings = [*_list_settings(cls), _make_setting("compiled", bool, False)]
    if variant == WRAPPER:
        settings.append(_make_setting("ball", float, 0.1))
    defaults = {setting.name: setting.default for setting in settings}

    def build(params: Any, **chosen: Any) -> torch.optim.Optimizer:
        chosen = {**defaults, **chosen}
        compiled, ball = chosen.pop("compiled"), chosen.pop("ball", None)
        arguments = {key: _translate(key, value) for key, value in chosen.items()}
        params = list(params)
        if "rank" in arguments and arguments["rank"] is None:  # heavyball needs a list of parameters for this
            arguments["rank"] = max(1, round(math.log2(_count_elements(params))))
        if arguments.get("max_lr", 0) is None:
            arguments["max_lr"] = arguments["lr"]
        if variant != WRAPPER:
            return _adapt(cls, compiled)(params, **arguments, **_VARIANTS[variant])
        base = _adapt(cls, compiled)(params, **arguments)
        wrapper = _adapt(_SAMWrapper, compiled)(_list_parameters(params), base, ball=ball)
        wrapper.defaults.update(base.defaults)
        return wrapper

    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    build.__signature__ = inspect.Signature([first, *settings])  # type: ignore[attr-defined]
    return build


class _SAMWrapper(heavyball.SAMWrapper):
    """A wrapper that lets the wrapped optimizer be without modes, and restores its state exactly."""

    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:  # heavyball's closure looks optional
        return super().step(closure)

    def train(self, mode: bool = True) -> _SAMWrapper:
        if hasattr(self.wrapped_optimizer, "train"):
            self.wrapped_optimizer.train(mode)
        return self

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # PyTorch has cast the state to the dtype of the parameters.
        groups = self.wrapped_optimizer.param_groups
        parameters = [p for group in groups for p in group["params"]]
        for index, state in state_dict["wrapped"]["state"].items():
            self.wrapped_optimizer.state[parameters[index]] = state


def _adapt(cls: type, compiled: bool) -> type:
    """Make a subclass whose methods adapt the functions of heavyball while they run."""
    fails_on_scalars = issubclass(cls, heavyball.SOAPBase | heavyball.PSGDLRA)

    def run_adapted(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            with _adapt_functions(compiled, fails_on_scalars):
                return method(self, *args, **kwargs)

        return run

    names = [name for name in ("step", "train", "eval") if hasattr(cls, name)]
    return type(cls.__name__, (cls,), {name: run_adapted(getattr(cls, name)) for name in names})


@contextmanager
def _adapt_functions(compiled: bool, fails_on_scalars: bool) -> Iterator[None]:
    """Let heavyball compile nothing unless it is asked for, and treat scalars as vectors of one element."""
    saved = utils.compile_mode, utils.merge_group
    if not compiled:
        utils.compile_mode = None
    if fails_on_scalars:
        utils.merge_group = _merge_group
    try:
        yield
    finally:
        utils.compile_mode, utils.merge_group = saved


_MERGE_GROUP = utils.merge_group


def _merge_group(group: dict[str, Any], *tensors: Any) -> Any:
    # heavyball calls it for each parameter, gradient and product with the Hessian.
    return _MERGE_GROUP(group, *(t.view(1) if getattr(t, "ndim", None) == 0 else t for t in tensors))


def _list_settings(cls: type) -> list[inspect.Parameter]:
    _, *parameters = inspect.signature(cls, eval_str=True).parameters.values()
    hidden = _HIDDEN | WITHOUT_EFFECT.get(cls.__name__, set())
    return [_convert(cls, parameter) for parameter in parameters if parameter.name not in hidden]


def _convert(cls: type, parameter: inspect.Parameter) -> inspect.Parameter:
    """Make a setting of a class's parameter, with a type and a default that a suite can write."""
    name, default = parameter.name, parameter.default
    if name in _REPLACED:
        return _make_setting(name, *_REPLACED[name])
    if default is utils.use_default:  # the class has an attribute of this name
        return _make_setting(name, bool, getattr(cls, name))
    return _make_setting(name, parameter.annotation, default)


def _make_setting(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _translate(name: str, value: Any) -> Any:
    """Translate a setting's value to heavyball's."""
    if name in ("gradient_clipping", "update_clipping"):
        return {"default": utils.use_default, "none": None}.get(value, value)
    if name == "preconditioner_update_probability" and value is None:
        return utils.use_default
    return value


def _list_parameters(params: list[Any]) -> list[torch.Tensor]:
    """List the parameters of a list of parameters or of parameter groups."""
    groups = (entry["params"] if isinstance(entry, dict) else [entry] for entry in params)
    return [parameter for group in groups for parameter in typing.cast(Any, group)]


def _count_elements(params: list[Any]) -> int:
    return sum(parameter.numel() for parameter in _list_parameters(params))
