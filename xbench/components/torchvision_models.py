"""torchvision's pretrained classification models, with a last layer for the dataset's classes.

All of them are available as `torchvision/NAME`. VGG-16 also has its own entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from xbench.components.roles import Role
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
    """Build one of torchvision's classifiers, with a last layer that is initialised at random.

    The last layer is drawn from torch's generator. The same state of the generator always gives the same
    last layer, whatever weights the other layers start from.

    Args:
        name: torchvision's name of the model.
        num_classes: number of logits.
        pretrained: start from trained weights; otherwise, from torchvision's random initialisation.
        weights: file with a state dict. It may have 1,000 outputs, or `num_classes` outputs, in which case
            the last layer is loaded too. It may also lack the head if all of the head is trained, in which
            case the head is initialised at random, with PyTorch's defaults. By default, the file that
            `XBENCH_<NAME>_WEIGHTS` names, or torchvision's own.
        train: parameters to train: `"head"` (the last submodule that has parameters: `classifier` of VGG-16,
            `fc` of ResNet), `"all"`, or patterns for their names, such as `"layer4.*, fc.*"`.

    Returns:
        A module from (N, 3, H, W) to (N, num_classes), in training mode too.

    Raises:
        WeightsNotFound: the file is not on this machine.
        XbenchError: the weights do not fit the model, or a setting is wrong.
    """
    _check(name, pretrained, weights)
    network = build_outline(name)
    head, last = find_head(network), find_last_layer(network)
    layer = make_layer_like(network.get_submodule(last), num_classes)
    path = find_weights(name, weights) if pretrained else None
    state = read_weights(path) if path is not None else {}
    lacks_head = path is not None and not holds_part(state, head)
    if path is None:
        network = _build_network(name)
    elif lacks_head:
        initialise_part(network.get_submodule(head))
    has_own_layer = count_outputs(state, last) == num_classes
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
            hint='set train = "head", or name a file with the weights of the whole model',
        )
    return network


def obtain_torchvision(name: str, settings: Mapping[str, Any], may_download: bool, on_progress: Any) -> str:
    """Make sure that the weights are on this machine; see `ModelSpec.obtain`."""
    _check(name, settings["pretrained"], settings["weights"])
    if not settings["pretrained"]:
        return ""
    return obtain_weights(name, settings["weights"], may_download, on_progress)


def torchvision_member(name: str) -> ModelSpec:
    """Make the spec of one of torchvision's classifiers."""
    from torchvision.models import get_model_weights

    # The normalisation of images depends on the weights, not on the network.
    default = get_model_weights(name).DEFAULT
    preprocessing = default.transforms()
    return _spec(
        name,
        millions=default.meta["num_params"] / 1e6,
        mean=tuple(preprocessing.mean),
        std=tuple(preprocessing.std),
        input_shape=(3, _image_size(name), _image_size(name)) if _needs_one_size(name) else None,
        roles=_declare_tables(name),
    )


def torchvision_members() -> list[str]:
    """List the names of torchvision's classifiers, without the quantized ones."""
    from torchvision import models

    return models.list_models(module=models)


def build_outline(name: str) -> nn.Module:
    """Build a network without allocating or drawing its weights, for trained ones to take their place.

    The state of torch's generator does not change.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WeightsWithoutMemory(TorchFunctionMode):
        # Layers allocate their weights with `torch.empty`. The context `torch.device("meta")` would affect
        # other tensors, too: RegNet computes its widths with tensors, and needs their values.
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
        return _build_network(name)


def find_last_layer(network: nn.Module) -> str:
    """Return the full name of the layer that computes the logits."""
    from torch import nn

    # In SqueezeNet, it is a convolution.
    return [key for key, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def find_head(network: nn.Module) -> str:
    """Return the name of the last submodule that has parameters: `classifier` of VGG-16, `fc` of ResNet."""
    return [key for key, child in network.named_children() if any(True for _ in child.parameters())][-1]


def initialise_part(part: nn.Module) -> None:
    """Initialise the weights of a part of an outline on the CPU, with PyTorch's defaults for new layers.

    torchvision initialises some layers differently: the fully connected layers of VGG from a normal
    distribution with a standard deviation of 0.01, which is two to three times as wide.
    """
    part.to_empty(device="cpu")
    for layer in part.modules():
        if any(True for _ in layer.parameters(recurse=False)):
            cast("nn.Linear", layer).reset_parameters()  # which all layers of torchvision's models have


def make_layer_like(layer: nn.Module, outputs: int) -> nn.Module:
    """Make a randomly initialised layer of the same type, with the same inputs.

    Args:
        layer: a fully connected layer, or a convolution with stride 1 and without padding.
        outputs: number of outputs of the new layer.
    """
    from torch import nn

    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        return nn.Conv2d(layer.in_channels, outputs, (height, width), bias=layer.bias is not None)
    raise TypeError(f"a {type(layer).__name__} cannot be the last layer of a classifier")


def count_outputs(state: Mapping[str, torch.Tensor], last: str) -> int | None:
    """Count the outputs of the last layer in a state dict; None if it has no such layer."""
    weight = state.get(f"{last}.weight")
    return weight.shape[0] if weight is not None and weight.ndim else None


def choose_trained(network: nn.Module, train: str, name: str) -> None:
    """Set `requires_grad` on the parameters that `train` names, and clear it on all others.

    Args:
        train: see `build_torchvision`.
        name: name of the model, for messages.

    Raises:
        XbenchError: a pattern does not match any parameter.
    """
    patterns = _patterns(network, train)
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(parameter, pattern) for parameter in parameters):
            raise XbenchError(
                f"train = \"{train}\": '{pattern}' does not match any parameter of {name}",
                hint='set train to "head", "all" or patterns for names such as '
                + ", ".join([*list(parameters)[:1], *list(parameters)[-2:]]),
            )
    for key, parameter in parameters.items():
        parameter.requires_grad_(any(fnmatchcase(key, pattern) for pattern in patterns))


def _patterns(network: nn.Module, train: str) -> list[str]:
    if train == "all":
        return ["*"]
    if train == "head":
        return [f"{find_head(network)}.*"]
    return [pattern.strip() for pattern in train.split(",")]


def _build_network(name: str) -> nn.Module:
    """Build a network with torchvision's random initialisation, for 1,000 classes."""
    from torchvision.models import get_model

    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Without auxiliary heads, the output in training mode is only the logits. These networks have weights
        # from TensorFlow, which expect another normalisation: `transform_input` converts to it.
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": _image_size(name)}
    return get_model(name, weights=None, **options)


def _needs_one_size(name: str) -> bool:
    return name.startswith(("vit_", "maxvit_"))


def _declare_tables(name: str) -> dict[str, Role]:
    """Declare the embeddings that are bare parameters: class tokens, and tables of positions."""
    if name.startswith("vit_"):
        return {"class_token": "embedding", "encoder.pos_embedding": "embedding"}
    if name.startswith("maxvit_") or (name.startswith("swin_") and not name.startswith("swin_v2_")):
        return {"*.relative_position_bias_table": "embedding"}
    return {}


def _image_size(name: str) -> int:
    """Return the height and width, in pixels, for which the weights were trained."""
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT.meta["min_size"][0]


def _check(name: str, pretrained: bool, weights: str) -> None:
    if weights and not pretrained:
        raise XbenchError(
            f'model {name}: weights = "{weights}" would not be read, because pretrained = false',
            hint="remove one of the two settings",
        )


def _stand_in(name: str, settings: Mapping[str, Any]) -> str:
    if not settings["pretrained"]:
        return "random weights"
    path = weights_file(name, settings["weights"])
    if path == hub_file(name):  # published files are complete
        return ""
    head = find_head(build_outline(name))
    holds_head = holds_part(read_weights(path, in_place=True), head)
    return "" if holds_head else f"a randomly initialised head: {path.name} has no weights for it"


def _spec(name: str, millions: float, **more: Any) -> ModelSpec:
    return ModelSpec(
        factory=partial(build_torchvision, name),
        summary=f"torchvision's {name}, pretrained on ImageNet, with {millions:,.1f} million parameters",
        reference=_PAGE.format(name),
        obtain=partial(obtain_torchvision, name),
        untrained=lambda settings: {**settings, "pretrained": False, "weights": ""},
        stand_in=partial(_stand_in, name),
        **more,
    )


# Equal to `torchvision_member("vgg16")`, but without importing torchvision.
VGG16 = _spec("vgg16", millions=138.4, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

TORCHVISION = Family(
    member=torchvision_member,
    members=torchvision_members,
    summary="torchvision's classification models, pretrained on ImageNet",
    reference="https://docs.pytorch.org/vision/stable/models.html#classification",
)
