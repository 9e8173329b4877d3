"""torchvision's classification models, pretrained, with a last layer for the classes at hand.

VGG-16 has an entry point of its own; all of them are `torchvision/NAME`, VGG-16 too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from xbench.components.registry import did_you_mean
from xbench.components.specs import Family, ModelSpec
from xbench.components.weights import (
    find_weights,
    fit_weights,
    holds_part,
    hub_file,
    obtain_weights,
    read_weights,
    weights_file,
)
from xbench.errors import XbenchError

if TYPE_CHECKING:
    import torch
    from torch import nn

_PAGE = "https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.{}.html"


def build_torchvision(
    name: str,
    num_classes: int,
    pretrained: bool = True,
    weights: str = "",
    train: str = "head",
) -> nn.Module:
    """Build one of torchvision's classifiers; its last layer is drawn anew, from torch's generator.

    A given state of the generator always gives the same last layer, whatever the rest starts from.

    Args:
        name: torchvision's.
        num_classes: number of logits.
        pretrained: start from trained weights; with random ones otherwise, as torchvision draws them.
        weights: file with a state dict of 1,000 outputs, or of `num_classes` (then the last layer is its,
            too), or without the head, if all of the head is trained (then it is drawn anew, as PyTorch
            draws new layers). By default what `XBENCH_<NAME>_WEIGHTS` names, else torchvision's own.
        train: which parameters are trained: `"head"` (the last submodule that has any: `classifier` of
            VGG-16, `fc` of ResNet), `"all"`, or patterns over their names, such as `"layer4.*, fc.*"`.

    Returns:
        A module from (N, 3, H, W) to (N, num_classes), in training mode as well.

    Raises:
        WeightsNotFound: the file is not on this machine.
        XbenchError: it does not fit, or a setting is wrong.
    """
    _check(name, pretrained, weights)
    network = outline_of(name)
    head, last = head_name(network), last_layer_name(network)
    layer = layer_like(network.get_submodule(last), num_classes)
    path = find_weights(name, weights) if pretrained else None
    state = read_weights(path) if path is not None else {}
    lacks_head = path is not None and not holds_part(state, head)
    if path is None:
        network = _network(name)
    elif lacks_head:
        draw_anew(network.get_submodule(head))
    has_own_layer = outputs_of(state, last) == num_classes
    if has_own_layer:
        network.set_submodule(last, layer)
    if path is not None:
        fit_weights(network, state, path, name, drawn_part=head if lacks_head else None)
    if not has_own_layer:
        network.set_submodule(last, layer)
    choose_trained(network, train, name)
    if lacks_head and not all(p.requires_grad for p in network.get_submodule(head).parameters()):
        raise XbenchError(
            f"{path} has no weights for '{head}', and train = \"{train}\" does not train all of it",
            hint='set train = "head", or name a file that holds the whole model',
        )
    return network


def obtain_torchvision(name: str, settings: Mapping[str, Any], may_download: bool, on_progress: Any) -> str:
    """Make sure that the weights are on this machine; see `ModelSpec.obtain`."""
    _check(name, settings["pretrained"], settings["weights"])
    if not settings["pretrained"]:
        return ""
    return obtain_weights(name, settings["weights"], may_download, on_progress)


def torchvision_member(name: str) -> ModelSpec:
    """The spec of one of torchvision's classifiers.

    Raises:
        XbenchError: torchvision has none of that name.
    """
    names = torchvision_members()
    if name not in names:
        raise XbenchError(
            f"torchvision has no classification model '{name}'.{did_you_mean(name, names)}",
            hint=f"`xbench info torchvision` lists all {len(names)}",
        )
    from torchvision.models import get_model_weights

    # The weights, and not the network, say how images are to be normalised.
    default = get_model_weights(name).DEFAULT
    preprocessing = default.transforms()
    return _spec(
        name,
        millions=default.meta["num_params"] / 1e6,
        mean=tuple(preprocessing.mean),
        std=tuple(preprocessing.std),
        input_shape=(3, _side(name), _side(name)) if _takes_one_size(name) else None,
    )


def torchvision_members() -> list[str]:
    """The names of torchvision's classifiers; quantized ones are in another module of torchvision."""
    from torchvision import models

    return models.list_models(module=models)


def outline_of(name: str) -> nn.Module:
    """A network whose weights take neither memory nor time: trained ones come in their place.

    torch's generator is left as it is.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WeightsWithoutMemory(TorchFunctionMode):
        # Layers get their weights from `torch.empty`. `torch.device("meta")` would take more than these:
        # RegNet computes its widths with tensors, whose values it needs.
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            kwargs = kwargs or {}
            return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))

    with torch.random.fork_rng(devices=[]), WeightsWithoutMemory():
        return _network(name)


def last_layer_name(network: nn.Module) -> str:
    """The full name of the layer that gives the logits."""
    from torch import nn

    # The last convolution is SqueezeNet's.
    return [key for key, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def head_name(network: nn.Module) -> str:
    """The name of the last submodule that has parameters: `classifier` of VGG-16, `fc` of ResNet."""
    return [key for key, child in network.named_children() if any(True for _ in child.parameters())][-1]


def draw_anew(part: nn.Module) -> None:
    """Draw the weights of a part of an outline as PyTorch draws those of new layers, on the CPU.

    torchvision draws some of them otherwise: VGG's fully connected layers from a normal distribution with a
    standard deviation of 0.01, two to three times as wide.
    """
    part.to_empty(device="cpu")
    for layer in part.modules():
        if any(True for _ in layer.parameters(recurse=False)):
            cast("nn.Linear", layer).reset_parameters()  # as every layer of torchvision's models


def layer_like(layer: nn.Module, outputs: int) -> nn.Module:
    """A newly drawn layer of the same kind and inputs.

    Args:
        layer: a fully connected layer, or a convolution of stride 1 that is not padded.
    """
    from torch import nn

    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        return nn.Conv2d(layer.in_channels, outputs, (height, width), bias=layer.bias is not None)
    raise TypeError(f"a {type(layer).__name__} gives no logits")


def outputs_of(state: Mapping[str, torch.Tensor], last: str) -> int | None:
    """How many classes the last layer of a state dict tells apart; None if there is no such layer."""
    weight = state.get(f"{last}.weight")
    return weight.shape[0] if weight is not None and weight.ndim else None


def choose_trained(network: nn.Module, train: str, name: str) -> None:
    """Switch `requires_grad` off for all parameters but those that `train` means (see `build_torchvision`).

    Raises:
        XbenchError: a pattern fits no parameter.
    """
    patterns = _patterns(network, train)
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(parameter, pattern) for parameter in parameters):
            raise XbenchError(
                f"train = \"{train}\": '{pattern}' fits no parameter of {name}",
                hint='it is "head", "all" or patterns over names such as '
                + ", ".join([*list(parameters)[:1], *list(parameters)[-2:]]),
            )
    for key, parameter in parameters.items():
        parameter.requires_grad_(any(fnmatchcase(key, pattern) for pattern in patterns))


def _patterns(network: nn.Module, train: str) -> list[str]:
    if train == "all":
        return ["*"]
    if train == "head":
        return [f"{head_name(network)}.*"]
    return [pattern.strip() for pattern in train.split(",")]


def _network(name: str) -> nn.Module:
    """The network as torchvision makes it, for 1,000 classes."""
    from torchvision.models import get_model

    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Without the auxiliary heads the output in training is logits alone. Their weights come from
        # TensorFlow and expect another normalisation, which the network itself changes to.
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": _side(name)}
    return get_model(name, weights=None, **options)


def _takes_one_size(name: str) -> bool:
    return name.startswith(("vit_", "maxvit_"))


def _side(name: str) -> int:
    """Height and width, in pixels, that the weights were trained for."""
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT.meta["min_size"][0]


def _check(name: str, pretrained: bool, weights: str) -> None:
    if weights and not pretrained:
        raise XbenchError(
            f'model {name}: weights = "{weights}" is not read with pretrained = false',
            hint="leave one of them out",
        )


def _stand_in(name: str, settings: Mapping[str, Any]) -> str:
    if not settings["pretrained"]:
        return "random weights"
    path = weights_file(name, settings["weights"])
    if path == hub_file(name):  # a published file is whole
        return ""
    head = head_name(outline_of(name))
    holds_head = holds_part(read_weights(path, in_place=True), head)
    return "" if holds_head else f"a randomly drawn head: {path.name} holds none"


def _spec(name: str, millions: float, **more: Any) -> ModelSpec:
    return ModelSpec(
        factory=partial(build_torchvision, name),
        summary=f"{name} of torchvision, pretrained on ImageNet: {millions:,.1f} million parameters",
        reference=_PAGE.format(name),
        obtain=partial(obtain_torchvision, name),
        untrained=lambda settings: {**settings, "pretrained": False, "weights": ""},
        stand_in=partial(_stand_in, name),
        **more,
    )


# What `torchvision_member("vgg16")` gives, without importing torchvision.
VGG16 = _spec("vgg16", millions=138.4, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

TORCHVISION = Family(
    member=torchvision_member,
    members=torchvision_members,
    summary="torchvision's classification models, pretrained on ImageNet",
    reference="https://docs.pytorch.org/vision/stable/models.html#classification",
)
