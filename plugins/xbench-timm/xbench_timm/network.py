"""Build timm's networks, with a classifier for the dataset's classes and with trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from xbench import XbenchError, raise_if_exhausted

from xbench_timm.weights import check_settings, count_classes, find_file, make_misfit

# Tables of positions that timm does not list in `no_weight_decay()` of every model.
_MORE_TABLES = {
    *("height_rel", "width_rel"),
    *("pos_emb", "pos_embed", "pos_embed_win", "pos_embed_x", "pos_embed_y"),
}


def build(
    name: str,
    num_classes: int,
    pretrained: bool = True,
    weights: str = "",
    train: str = "head",
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
) -> nn.Module:
    """Build one of timm's networks, with a classifier that is initialised at random.

    The classifier is drawn from torch's generator. The same state of the generator always gives the same
    classifier, whatever weights the other layers start from.

    Args:
        name: timm's name of the model, with or without a tag.
        num_classes: number of logits.
        pretrained: start from trained weights; otherwise, from timm's random initialisation.
        weights: file with a state dict, in timm's layout or any other that timm converts for this model. It
            may have the classes of timm's own weights, or any other number of classes. If it has
            `num_classes`, the classifier is loaded too. It may also lack the classifier. By default, timm's
            own weights.
        train: parameters to train: `"head"` (timm's `get_classifier()`), `"all"`, or patterns for their
            names, such as `"layer4.*, fc.*"`.
        drop_rate: dropout before the classifier, from 0 to below 1; by default timm's for the model.
        drop_path_rate: highest probability of leaving out a residual branch, from 0 to below 1; by default
            timm's for the model.

    Returns:
        A module from (N, 3, H, W) to (N, num_classes), in training mode too.

    Raises:
        WeightsNotFound: timm's weights are not on this machine.
        XbenchError: the weights do not fit the model, or a setting is wrong.
    """
    check_settings(name, pretrained, weights)
    rates: dict[str, Any] = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    _check_rates(rates)
    path = find_file(name, weights) if pretrained else None
    seed = int(torch.randint(2**62, ()))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network, loaded_classes = _create(name, path, bool(weights), rates)
    if loaded_classes != num_classes:
        network.reset_classifier(num_classes)
    choose_trained(network, train, name)
    return network


def build_outline(name: str) -> nn.Module:
    """Build a network on torch's meta device: its structure without weights.

    The state of torch's generator does not change.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return timm.create_model(name)


def find_classifier(network: nn.Module) -> list[str]:
    """Return the names of the modules that compute the logits: one, or several that are averaged."""
    found = network.get_classifier()
    parts = list(found) if isinstance(found, tuple | list) else [found]
    return [name for name, module in network.named_modules() if any(module is part for part in parts)]


def find_outputs(network: nn.Module) -> list[str]:
    """Return patterns for the parameters of the layers that compute logits, if there are several of them."""
    inside = tuple(f"{part}." for part in find_classifier(network))
    layers = [
        name
        for name, module in network.named_modules()
        if f"{name}.".startswith(inside)
        and isinstance(module, nn.Linear | nn.Conv2d)
        and module.weight.shape[0] == network.num_classes
    ]
    return [f"{layer}.*" for layer in layers] if len(layers) > 1 else []


def find_tables(network: nn.Module) -> list[str]:
    """Return patterns for the names of embeddings that are bare parameters: tokens, and tables of positions.

    timm lists them in `no_weight_decay()`.
    """
    listed = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    # timm also lists the weights of layers that compute positions, and factors of attention.
    no_tables = {"weight", "bias", "logit_scale"}
    names = ({name.rpartition(".")[2] for name in listed} | _MORE_TABLES) - no_tables
    found = [key for key, p in network.named_parameters() if p.ndim > 1 and key.rpartition(".")[2] in names]
    return sorted({f"*.{key.rpartition('.')[2]}" if "." in key else key for key in found})


def choose_trained(network: nn.Module, train: str, name: str) -> None:
    """Set `requires_grad` on the parameters that `train` names, and clear it on all others.

    Args:
        train: see `build`.
        name: name of the model, for messages.

    Raises:
        XbenchError: a pattern does not match any parameter.
    """
    patterns = _list_patterns(network, train)
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(parameter, pattern) for parameter in parameters):
            raise XbenchError(
                f"train = \"{train}\": '{pattern}' does not match any parameter of timm's {name}",
                hint='set train to "head", "all" or patterns for names such as '
                + ", ".join([*list(parameters)[:1], *list(parameters)[-2:]]),
            )
    for key, parameter in parameters.items():
        parameter.requires_grad_(any(fnmatchcase(key, pattern) for pattern in patterns))


def _list_patterns(network: nn.Module, train: str) -> list[str]:
    if train == "all":
        return ["*"]
    if train == "head":
        return [f"{part}.*" for part in find_classifier(network)]
    return [pattern.strip() for pattern in train.split(",")]


def _create(
    name: str, path: Path | None, is_users: bool, rates: dict[str, Any]
) -> tuple[nn.Module, int | None]:
    """Create a network, with the weights of a file.

    Args:
        path: file of the weights; None for random ones.
        is_users: whether the user names the file, which may then have any number of classes.

    Returns:
        The network, and the number of classes of the classifier that was loaded; None if none was loaded.
    """
    try:
        if path is None:
            return timm.create_model(name, **rates), None
        overlay: dict[str, Any] = {"file": str(path)}
        if not is_users:
            network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **rates)
            return network, network.num_classes
        count = count_classes(name, path)
        overlay |= {"num_classes": count, "label_offset": 0}
        with _load_strictly():
            network = timm.create_model(
                name, pretrained=True, num_classes=count, pretrained_cfg_overlay=overlay, **rates
            )
        return network, count
    except XbenchError:
        raise
    except Exception as error:  # what converts a file of another model can raise anything
        refused = [rate for rate in rates if "unexpected keyword" in str(error) and rate in str(error)]
        if refused:
            raise XbenchError(f"timm's {name} has no {refused[0]}", hint=f"leave out {refused[0]}") from error
        if path is None:
            raise
        raise_if_exhausted(error)  # which is not the file's fault
        raise make_misfit(name, path, error) from error


@contextmanager
def _load_strictly() -> Iterator[None]:
    """Make state dicts load completely or not at all. For some models, timm loads the part that fits."""
    original = nn.Module.load_state_dict

    def load(
        self: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        return original(self, state_dict, strict=True, assign=assign)

    nn.Module.load_state_dict = load  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def _check_rates(rates: dict[str, float | None]) -> None:
    for name, rate in rates.items():
        if rate is not None and not 0 <= rate < 1:
            raise XbenchError(f"{name} = {rate} is not a probability from 0 to below 1")
