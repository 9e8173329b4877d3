"""Describe timm's models to xbench."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import timm
from timm.models import PretrainedCfg, get_arch_name, get_deprecated_models
from xbench import ModelSpec, XbenchError

from xbench_timm.network import build, build_outline, find_outputs, find_tables
from xbench_timm.weights import obtain, read_config


@cache
def list_names() -> list[str]:
    """List timm's models: every architecture, followed by its names with the tags of trained weights.

    `resnet18` has timm's default weights, and `resnet18.a1_in1k` the weights of this tag.
    """
    tagged: dict[str, list[str]] = {}
    for name in timm.list_models(include_tags=True):
        tagged.setdefault(get_arch_name(name), []).append(name)
    return [name for arch in timm.list_models() for name in dict.fromkeys([arch, *tagged.get(arch, [])])]


def make_spec(name: str) -> ModelSpec:
    """Make the spec of one of timm's models.

    Raises:
        LookupError: timm has no model of this name.
        XbenchError: the model has another name now, or it has no classifier.
    """
    if (renamed := get_deprecated_models().get(name)) is not None:
        raise XbenchError(f"timm has renamed '{name}' to '{renamed}'", hint=f"write `timm/{renamed}`")
    config = read_config(name)
    network = build_outline(name)
    if not hasattr(network, "reset_classifier"):
        raise XbenchError(
            f"timm's {name} is an encoder without a classifier, so it cannot be trained on classes",
            hint="`xbench info timm` lists the other models",
        )
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return ModelSpec(
        factory=partial(build, name),
        summary=f"timm's {name}, {_describe_weights(config)}, with {millions:,.1f} million parameters",
        reference=f"https://huggingface.co/{config.hf_hub_id}"
        if config.hf_hub_id
        else "https://huggingface.co/docs/timm",
        input_shape=config.input_size if config.fixed_input_size else None,
        mean=tuple(config.mean),
        std=tuple(config.std),
        obtain=partial(obtain, name),
        untrained=_leave_untrained,
        stand_in=_name_stand_in,
        roles=dict.fromkeys(find_tables(network), "embedding")
        | dict.fromkeys(find_outputs(network), "output"),
    )


def _describe_weights(config: PretrainedCfg) -> str:
    if not config.has_weights:
        return "without trained weights"
    return f"pretrained ({config.tag})" if config.tag else "pretrained"


def _leave_untrained(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "pretrained": False, "weights": ""}


def _name_stand_in(settings: Mapping[str, Any]) -> str:
    return "" if settings["pretrained"] else "random weights"
