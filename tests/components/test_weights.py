"""Tests of files of weights: finding, downloading, reading and loading them."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from xbench.components import weights
from xbench.components.registry import load
from xbench.components.weights import find_weights, fit_weights, obtain_weights, read_weights
from xbench.errors import WeightsNotFound, XbenchError

SMALL = "mobilenet_v3_small"
VARIABLE = "XBENCH_MOBILENET_V3_SMALL_WEIGHTS"
SETTINGS = {"pretrained": True, "weights": "", "train": "head"}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch) -> Path:
    """Point torch.hub to a folder of checkpoints that does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(7)
    return torchvision.models.get_model(SMALL).state_dict()


def save(content, path):
    torch.save(content, path)
    return str(path)


def small(**settings):
    return load("model", f"torchvision/{SMALL}").load_factory()(2, **settings)


def a_layer():
    return nn.Sequential(OrderedDict(layer=nn.Linear(3, 2)))


# Finding the file


def test_setting_takes_precedence_over_the_variable_and_over_torchvisions_file(tmp_path, monkeypatch, hub):
    with pytest.raises(WeightsNotFound):
        find_weights(SMALL, "")
    hub.mkdir(parents=True)
    own = hub / "mobilenet_v3_small-047dcff4.pth"
    for path in (own, tmp_path / "by_variable.pth", tmp_path / "by_setting.pth"):
        path.write_bytes(path.name.encode())
    assert find_weights(SMALL, "") == own
    monkeypatch.setenv(VARIABLE, str(tmp_path / "by_variable.pth"))
    assert find_weights(SMALL, "") == tmp_path / "by_variable.pth"
    assert find_weights(SMALL, str(tmp_path / "by_setting.pth")) == tmp_path / "by_setting.pth"
    assert find_weights("vgg16", str(tmp_path / "by_setting.pth")) == tmp_path / "by_setting.pth"


def test_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.pth").write_bytes(b"mine")
    assert find_weights(SMALL, "~/mine.pth") == tmp_path / "mine.pth"


def test_the_factory_takes_the_variable_and_torchvisions_own_file(state, tmp_path, monkeypatch, hub):
    hub.mkdir(parents=True)
    save(state, hub / "mobilenet_v3_small-047dcff4.pth")
    assert torch.equal(small().features[0][0].weight, state["features.0.0.weight"])
    other = dict(state) | {"features.0.0.weight": torch.zeros_like(state["features.0.0.weight"])}
    monkeypatch.setenv(VARIABLE, save(other, tmp_path / "other.pth"))
    assert not small().features[0][0].weight.any()


@pytest.mark.parametrize("by", ["setting", "variable"])
@pytest.mark.parametrize("path", ["absent.pth", "."])
def test_missing_user_file_is_an_error_without_a_fallback(tmp_path, monkeypatch, by, path):
    named = tmp_path / path
    if by == "variable":
        monkeypatch.setenv(VARIABLE, str(named))
    setting = str(named) if by == "setting" else ""
    for attempt in (
        lambda: small(weights=setting),
        lambda: obtain_weights(SMALL, setting, True, print),
    ):
        with pytest.raises(XbenchError) as caught:
            attempt()
        assert type(caught.value) is XbenchError
        assert f"names {named}, which is not a file" in caught.value.message
        assert (VARIABLE if by == "variable" else "`weights`") in caught.value.message


def test_factory_never_downloads_weights(monkeypatch):
    monkeypatch.setattr(weights, "download", lambda *args: pytest.fail("downloads"))
    with pytest.raises(WeightsNotFound, match=r"mobilenet_v3_small-047dcff4.pth.* not on this machine"):
        small()


# Downloading it


def obtain(settings, may_download=True, on_progress=lambda *args: None):
    return load("model", f"torchvision/{SMALL}").load_obtain()(settings, may_download, on_progress)


@pytest.fixture
def server(tmp_path, state, monkeypatch):
    """Serve the weights on this machine, under a name that ends with digits of their hash.

    Yields (server, the file that it serves).
    """
    folder = tmp_path / "published"
    folder.mkdir()
    path = Path(save(state, folder / "new"))
    name = f"small-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(folder / name)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{running.server_address[1]}/{name}"
    monkeypatch.setattr(weights, "published_url", lambda model: url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield running, folder / name
    running.shutdown()
    running.server_close()
    thread.join()


def test_no_weights_need_no_file():
    assert obtain(SETTINGS | {"pretrained": False}) == ""


def test_user_file_is_identified_by_its_hash(state, tmp_path):
    path = save(state, tmp_path / "mine.pth")
    identity = obtain(SETTINGS | {"weights": path})
    assert identity == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_torchvisions_file_is_downloaded_once_and_identified_by_its_name(server, hub):
    _, published = server
    told = []
    assert obtain(SETTINGS, on_progress=lambda *args: told.append(args)) == published.name
    assert (hub / published.name).read_bytes() == published.read_bytes()
    size_bytes = published.stat().st_size
    assert told[-2:] == [
        (published.name, size_bytes, size_bytes),
        (f"{published.name} (verifying it)", 0, 0),
    ]
    published.unlink()
    assert obtain(SETTINGS, may_download=False) == published.name
    assert small().classifier[3].out_features == 2


def test_nothing_is_downloaded_without_permission(server, hub):
    with pytest.raises(WeightsNotFound, match="not on this machine") as caught:
        obtain(SETTINGS, may_download=False)
    assert not hub.exists()
    assert str(hub) in caught.value.hint and VARIABLE in caught.value.hint
    assert "pretrained = false" in caught.value.hint


def test_file_with_the_wrong_hash_is_not_kept(server, hub):
    _, published = server
    published.write_bytes(b"something else")
    with pytest.raises(XbenchError, match="sha256") as caught:
        obtain(SETTINGS)
    assert not isinstance(caught.value, WeightsNotFound)
    assert not (hub / published.name).exists()


@pytest.mark.parametrize("trouble", ["server down", "not there"])
def test_failed_download_is_an_error_with_a_hint(server, hub, trouble):
    running, published = server
    if trouble == "server down":
        running.shutdown()
        running.server_close()
    else:
        published.unlink()
    with pytest.raises(WeightsNotFound) as caught:
        obtain(SETTINGS)
    message = caught.value.message
    assert "\n" not in message
    assert published.name in message and str(hub) in message
    assert 'weights = "PATH"' in message and VARIABLE in message and "pretrained = false" in message


# Reading it


class Code:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path):
    path = save({"layer.weight": Code(tmp_path / "was run")}, tmp_path / "code.pth")
    for in_place in (False, True):
        with pytest.raises(XbenchError, match=r"code.pth holds Python objects") as caught:
            read_weights(Path(path), in_place)
        assert "state_dict()" in caught.value.hint
    assert not (tmp_path / "was run").exists()


def test_a_whole_pickled_model_is_not_read(tmp_path):
    path = save(a_layer(), tmp_path / "model.pth")
    with pytest.raises(XbenchError, match=r"model.pth holds Python objects"):
        read_weights(Path(path))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_truncated_file_is_refused(state, tmp_path, zipped, kept):
    path = tmp_path / "cut.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(
        XbenchError, match=r"cut\.pth is not a PyTorch checkpoint, or it is truncated"
    ) as caught:
        small(weights=str(path))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", b"PK\x03\x04 no archive", bytes(5000), b"\x80"]
)
def test_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "page.pth").write_bytes(content)
    for in_place in (False, True):
        with pytest.raises(XbenchError, match=r"page.pth is not a PyTorch checkpoint"):
            read_weights(tmp_path / "page.pth", in_place)


@pytest.mark.parametrize(
    "content", [{}, [torch.ones(2)], torch.ones(2), {"epoch": 3}, {3: torch.ones(2)}, {"model": {"lr": 0.1}}]
)
def test_checkpoint_without_a_state_dict_is_refused(tmp_path, content):
    with pytest.raises(XbenchError, match=r"odd.pth holds no state dict"):
        read_weights(Path(save(content, tmp_path / "odd.pth")))


def test_out_of_memory_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    (tmp_path / "any.pth").write_bytes(b"any")
    words = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    for error in (MemoryError(), RuntimeError(words)):

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(type(error)) as caught:
            read_weights(tmp_path / "any.pth")
        assert caught.value is error


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", ["", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_usual_ways_of_saving_are_read(tmp_path, zipped, wrap, prefix):
    layer = a_layer()
    content = {f"{prefix}{key}": value for key, value in layer.state_dict().items()}
    if wrap:
        content = {wrap: content, "epoch": 3}
    torch.save(content, tmp_path / "one.pth", _use_new_zipfile_serialization=zipped)
    read = read_weights(tmp_path / "one.pth")
    assert list(read) == ["layer.weight", "layer.bias"]
    assert torch.equal(read["layer.weight"], layer.layer.weight)
    assert list(read_weights(tmp_path / "one.pth", in_place=True)) == list(read)


def test_values_can_be_memory_mapped(tmp_path, monkeypatch):
    path, load, mapped = Path(save(a_layer().state_dict(), tmp_path / "one.pth")), torch.load, []

    def spy(*args, **options):
        mapped.append(options["mmap"])
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", spy)
    in_memory, in_file = read_weights(path), read_weights(path, in_place=True)
    assert mapped == [False, True]
    assert all(torch.equal(in_memory[key], in_file[key]) for key in in_file)


# Loading it


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("layer.bias"), "it lacks layer.bias$"),
        (lambda state: state.clear(), "it lacks layer.weight and 1 more$"),
        (lambda state: state.update(more=torch.ones(1)), "it has the unknown more$"),
        (
            lambda state: state.update(odd=state.pop("layer.bias")),
            "it lacks layer.bias and has the unknown odd$",
        ),
        (
            lambda state: state.update({"layer.weight": torch.ones(2, 4)}),
            "layer.weight is 2 x 4 in the file, 2 x 3 in the model$",
        ),
        (
            lambda state: state.update({"layer.bias": torch.tensor(1.0)}),
            "layer.bias is a single number in the file, 2 in the model$",
        ),
    ],
)
def test_message_names_what_does_not_fit(change, complaint):
    state = a_layer().state_dict()
    change(state)
    with pytest.raises(XbenchError) as caught:
        fit_weights(a_layer(), state, Path("file.pth"), "tiny")
    assert re.search(f"^file.pth does not fit tiny: {complaint}", caught.value.message)
    assert caught.value.hint.startswith("use a file ")


def test_weights_of_another_model_are_refused(state, tmp_path):
    path = save(state, tmp_path / "other.pth")
    with pytest.raises(XbenchError, match=r"other.pth does not fit squeezenet1_1: "):
        load("model", "torchvision/squeezenet1_1").load_factory()(2, weights=path)


def test_loaded_tensors_are_contiguous_float32_with_storage_of_their_own():
    both = torch.arange(24, dtype=torch.float64).reshape(8, 3)
    state = {"layer.weight": both[:2], "layer.bias": torch.arange(4.0)[::2]}
    layer = a_layer()
    fit_weights(layer, state, Path("file.pth"), "tiny")
    for parameter in layer.parameters():
        assert parameter.dtype == torch.float32 and parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
    assert layer.layer.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert layer.layer.bias.tolist() == [0, 2]


def test_old_layer_names_of_densenet_are_accepted(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.get_model("densenet121")
    state = network.state_dict()
    old = OrderedDict(
        (key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."), value) for key, value in state.items()
    )
    assert set(old) != set(state)
    path = save(old, tmp_path / "old.pth")
    built = load("model", "torchvision/densenet121").load_factory()(2, weights=path)
    assert torch.equal(
        built.features.denseblock1.denselayer1.conv2.weight,
        network.features.denseblock1.denselayer1.conv2.weight,
    )


def test_model_receives_the_version_of_the_file(tmp_path):
    network = torchvision.models.get_model("mnasnet0_5")
    path = save({"model": network.state_dict()}, tmp_path / "versioned.pth")
    build = load("model", "torchvision/mnasnet0_5").load_factory()
    assert torch.equal(build(2, weights=path).layers[0].weight, network.layers[0].weight)
    path = save(dict(network.state_dict()), tmp_path / "plain.pth")
    with pytest.raises(XbenchError, match=r"plain.pth does not fit mnasnet0_5: .*version"):
        build(2, weights=path)
