"""Trained weights of torchvision's models: their file, getting it, reading it, fitting it in."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.errors import DownloadFailed, WeightsNotFound, XbenchError
from xbench.storage.downloads import download, sha256_of
from xbench.storage.paths import cache_dir, expand_user

if TYPE_CHECKING:
    import torch
    from torch import nn

# torchvision's file names end with the first digits of the content's SHA-256.
_DIGITS = re.compile(r"-([0-9a-f]{8,})\.")

# What torchvision saved with the weights of GoogLeNet and Inception v3, and is of no use here.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")

# Layers of DenseNet had dots in their names when its weights were published: `norm.1` is `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")

_HOW_TO_SAVE = "save the weights alone: `torch.save(model.state_dict(), PATH)`"


def obtain_weights(
    name: str, weights: str, may_download: bool, on_progress: Callable[[str, int, int], None]
) -> str:
    """Make sure that a model's weights are on this machine.

    Args:
        name: torchvision's, of the model.
        weights: the file that the suite names; "" for none.
        may_download: fetch torchvision's own weights if they are missing.
        on_progress: is told (file name, bytes done, bytes in all) of a download; of other work on the file,
            with what it is behind the name, and 0 for both sizes.

    Returns:
        What identifies the weights: the SHA-256 of a file that the user names, in hex, or the name of
        torchvision's, which holds the first digits of it.

    Raises:
        WeightsNotFound: torchvision's file is not here, and cannot be fetched or may not be.
        XbenchError: a file that the user names is not there, or cannot be read; or what was fetched is not
            torchvision's.
    """
    path = _users_file(name, weights)
    if path is not None:
        return _hash_of(path)
    path = hub_file(name)
    if not path.is_file():
        if not may_download:
            raise _not_here(name)
        _fetch(name, path, on_progress)
    elif not _hash_of(path).startswith(_digits(path)):
        raise XbenchError(
            f"{path} is damaged: its content does not have the hash in its name",
            hint="remove it: it is fetched again",
        )
    return path.name


def find_weights(name: str, weights: str) -> Path:
    """The file with a model's weights; nothing is downloaded.

    Raises:
        WeightsNotFound: torchvision's file is not on this machine.
        XbenchError: a file that the user names is not there.
    """
    path = weights_file(name, weights)
    if not path.is_file():
        raise _not_here(name)
    return path


def weights_file(name: str, weights: str) -> Path:
    """Where a model's weights are, or would be.

    Raises:
        XbenchError: a file that the user names is not there.
    """
    return _users_file(name, weights) or hub_file(name)


def weights_variable(name: str) -> str:
    """The environment variable that names a file with a model's weights."""
    return f"XBENCH_{name.upper()}_WEIGHTS"


def published_url(name: str) -> str:
    """Where torchvision publishes the weights that it recommends for a model."""
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT.url


def hub_file(name: str) -> Path:
    """Where torchvision itself would keep them on this machine, or xbench's cache if the user has no home
    folder. The file may not be there yet."""
    import torch

    hub = Path(torch.hub.get_dir())
    if hub.parts[0] == "~":  # nothing tells of a home folder
        hub = cache_dir() / "torch" / "hub"
    return hub / "checkpoints" / published_url(name).rpartition("/")[2]


def read_weights(path: Path, in_place: bool = False) -> dict[str, torch.Tensor]:
    """Read a state dict; nothing in the file is run.

    It may lie under `state_dict` or `model`, and may be of a `DataParallel`.

    Args:
        in_place: leave the values in the file, mapped into memory, for a caller that needs names and shapes
            alone. Files in the format of torch before 1.6 are read all the same.

    Raises:
        XbenchError: the file is not a checkpoint, holds other things than plain values, or has no state dict.
    """
    import torch
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

    try:
        path.open("rb").close()
    except OSError as error:
        raise XbenchError(f"{path} cannot be read: {error.strerror}") from error
    try:
        # By default not memory-mapped: read once into memory of this process, they become the parameters.
        is_mapped = in_place and zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # bytes that are no checkpoint can raise anything
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise  # a lack of memory is not the file's fault
        raise _unreadable(path, error) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    is_named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not is_named or not state or not all(map(torch.is_tensor, state.values())):
        raise XbenchError(f"{path} holds no state dict", hint=_HOW_TO_SAVE)
    consume_prefix_in_state_dict_if_present(state, "module.")
    return state


def holds_part(state: Mapping[str, torch.Tensor], part: str) -> bool:
    """Whether a state dict has any tensor of the submodule named `part`."""
    return any(key.startswith(f"{part}.") for key in state)


def fit_weights(
    network: nn.Module,
    state: dict[str, torch.Tensor],
    path: Path,
    name: str,
    drawn_part: str | None = None,
) -> None:
    """Make the tensors of a state dict the parameters and buffers of a network, without a copy where they
    can be used as they are.

    Args:
        network: its weights may be on torch's meta device. It is useless after an error.
        state: is changed.
        path, name: the file and the model, for messages.
        drawn_part: a submodule that the file need not hold; it keeps the network's own weights.

    Raises:
        XbenchError: names or shapes are not those of the network.
    """
    _rename(state)
    expected = network.state_dict()
    shared = [key for key in expected if key in state]
    wrong = [key for key in shared if state[key].shape != expected[key].shape]
    if wrong:
        key = wrong[0]
        file_shape, model_shape = _shape(state[key]), _shape(expected[key])
        raise XbenchError(
            f"{path} does not fit {name}: {key} is {file_shape} in the file, {model_shape} in the model",
            hint="is it for another model? It needs 1000 outputs, or one for each class",
        )
    for key in shared:
        state[key] = _own_copy(state[key], expected[key].dtype)
    try:
        # "assign": the tensors themselves, where the usual copying would hold everything twice.
        keys = network.load_state_dict(state, strict=False, assign=True)
    except (RuntimeError, ValueError) as error:  # some models look at a file's version
        raise XbenchError(
            f"{path} does not fit {name}: {_shorten(_one_line(error))}", hint=_HOW_TO_SAVE
        ) from error
    missing = [key for key in keys.missing_keys if not (drawn_part and key.startswith(f"{drawn_part}."))]
    problems = [("lacks", missing), ("has the unknown", keys.unexpected_keys)]
    told = [f"{verb} {_some(names)}" for verb, names in problems if names]
    if told:
        raise XbenchError(
            f"{path} does not fit {name}: it {' and '.join(told)}", hint="is it for another model?"
        )


def _users_file(name: str, weights: str) -> Path | None:
    variable = weights_variable(name)
    for source, value in ((f"the `weights` of model {name}", weights), (variable, os.environ.get(variable))):
        if value:
            path = expand_user(value, source)
            if not path.is_file():
                raise XbenchError(
                    f"{source} names {path}, which is not a file",
                    hint=f"without it, {name}'s published weights are used",
                )
            return path
    return None


def _fetch(name: str, path: Path, on_progress: Callable[[str, int, int], None]) -> None:
    url = published_url(name)
    try:
        download(
            url,
            path,
            _digits(path),
            partial(on_progress, path.name),
            on_step=lambda step: on_progress(f"{path.name} ({step})", 0, 0),
        )
    except DownloadFailed as error:
        raise WeightsNotFound(
            f"the weights of {name} cannot be downloaded ({error.message}): {_how_to_get(name)}"
        ) from error


def _hash_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise XbenchError(f"{path} cannot be read: {error.strerror}") from error


def _digits(path: Path) -> str:
    return _DIGITS.findall(path.name)[0]


def _not_here(name: str) -> WeightsNotFound:
    return WeightsNotFound(
        f"the weights of {name} ({hub_file(name).name}) are not on this machine", hint=_how_to_get(name)
    )


def _how_to_get(name: str) -> str:
    return (
        f'put {published_url(name)} into {hub_file(name).parent}, or name a file with `weights = "PATH"` or '
        f"{weights_variable(name)}, or set `pretrained = false`"
    )


def _unreadable(path: Path, error: Exception) -> XbenchError:
    # torch has no exception of its own for a file that would have called something.
    if "unsupported global" in str(error).lower():
        return XbenchError(
            f"{path} holds Python objects beside weights; they may run code, so it is not read",
            hint=_HOW_TO_SAVE,
        )
    # In front of its reason torch tells how to switch the check off.
    reason = _one_line(error).rpartition("WeightsUnpickler error: ")[2]
    return XbenchError(
        f"{path} is not a PyTorch checkpoint, or it is truncated ({_shorten(reason)})",
        hint="fetch or save it again",
    )


def _rename(state: dict[str, torch.Tensor]) -> None:
    for key in list(state):
        if key.startswith(_AUXILIARY):
            del state[key]
        elif (new := _OLD_DENSENET.sub(r"\1\2.", key)) != key:
            state[new] = state.pop(key)


def _own_copy(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor as a contiguous one that shares no storage with what is not part of it."""
    tensor = tensor.detach().to(dtype).contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _shorten(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
