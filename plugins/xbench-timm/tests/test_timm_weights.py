"""Tests of trained weights: from a hub on this machine, from an address, and from files of the user."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace

import pytest

timm = pytest.importorskip("timm")
pytest.importorskip("xbench_timm")

import huggingface_hub.constants  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from timm_hub import serve  # noqa: E402
from xbench import WeightsNotFound, XbenchError  # noqa: E402

from xbench_timm import weights as weights_module  # noqa: E402
from xbench_timm.network import build  # noqa: E402
from xbench_timm.weights import obtain  # noqa: E402

pytestmark = pytest.mark.plugin

NAME = "test_resnet"
REPOSITORY = "timm/test_resnet.r160_in1k"
PUBLISHED = {"pretrained": True, "weights": "", "train": "head"}


def make_original(name=NAME, seed=5, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, **options)


@pytest.fixture(scope="module")
def original():
    return make_original()


@pytest.fixture(scope="module")
def content(original):
    return safetensors.torch.save(original.state_dict())


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Keep downloads in an empty folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    return tmp_path


@pytest.fixture
def hub(cache, monkeypatch):
    """Return a function that serves the files of timm's repository as the hub does."""

    def open_hub(files):
        paths = {f"/{REPOSITORY}/resolve/main/{name}": content for name, content in files.items()}
        address, requests = servers.enter_context(serve(paths))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        return requests

    with ExitStack() as servers:
        yield open_hub


def make(num_classes=2, seed=0, name=NAME, **settings):
    torch.manual_seed(seed)
    return build(name, num_classes, **settings)


def check_body(network, original, classifier="fc."):
    ours, theirs = network.state_dict(), original.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith(classifier))


class TestHub:
    def test_weights_are_downloaded_once_with_progress_and_loaded(self, hub, content, original):
        requests, progress = hub({"model.safetensors": content}), []
        identity = obtain(NAME, PUBLISHED, True, lambda *step: progress.append(step))
        assert identity == f"{REPOSITORY} {hashlib.sha256(content).hexdigest()}"
        assert progress[-1] == (f"{REPOSITORY}/model.safetensors", len(content), len(content))
        assert [done for _, done, _ in progress] == sorted(done for _, done, _ in progress)
        seen = list(requests)
        assert obtain(NAME, PUBLISHED, False, print) == identity
        check_body(make(), original)
        assert requests == seen  # neither asks the hub again

    def test_older_repositories_have_pickled_weights(self, hub, original, tmp_path):
        torch.save(original.state_dict(), tmp_path / "old.bin")
        requests = hub({"pytorch_model.bin": (tmp_path / "old.bin").read_bytes()})
        assert obtain(NAME, PUBLISHED, True, lambda *step: None).startswith(REPOSITORY)
        assert any("model.safetensors" in request for request in requests)
        check_body(make(), original)

    def test_damaged_file_is_refused(self, hub, content, cache):
        hub({"model.safetensors": content})
        obtain(NAME, PUBLISHED, True, lambda *step: None)
        (blob,) = cache.glob("hub/*/blobs/*")
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(XbenchError, match="is damaged") as caught:
            obtain(NAME, PUBLISHED, False, print)
        assert str(blob) in caught.value.hint

    def test_missing_weights_are_not_downloaded_unless_they_may_be(self, hub, content):
        requests = hub({"model.safetensors": content})
        with pytest.raises(WeightsNotFound) as caught:
            obtain(NAME, PUBLISHED, False, print)
        assert "the weights of timm/test_resnet are not on this machine" in caught.value.message
        check_advice(caught.value.hint)
        with pytest.raises(WeightsNotFound):
            make()
        assert requests == []

    def test_unknown_repository_says_what_to_do(self, hub):
        hub({})
        with pytest.raises(WeightsNotFound, match="cannot be downloaded") as caught:
            obtain(NAME, PUBLISHED, True, lambda *step: None)
        check_advice(caught.value.hint)

    def test_offline_mode_says_what_to_do(self, cache, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE") as caught:
            obtain(NAME, PUBLISHED, True, lambda *step: None)
        check_advice(caught.value.hint)

    def test_classifier_of_the_same_number_of_classes_is_loaded(self, hub, content, original):
        hub({"model.safetensors": content})
        obtain(NAME, PUBLISHED, True, lambda *step: None)
        assert torch.equal(make(num_classes=1000).fc.weight, original.fc.weight)

    def test_classifier_depends_only_on_the_seed(self, hub, content):
        hub({"model.safetensors": content})
        obtain(NAME, PUBLISHED, True, lambda *step: None)
        first = make(seed=1).fc.weight
        assert torch.equal(first, make(seed=1, pretrained=False).fc.weight)
        assert not torch.equal(first, make(seed=2).fc.weight)


def check_advice(hint):
    assert f"`hf download {REPOSITORY} model.safetensors`" in hint
    assert '`weights = "PATH"`' in hint
    assert "`pretrained = false`" in hint


class TestAddress:
    """Weights that are not on the hub."""

    @pytest.fixture
    def configure(self, cache, monkeypatch):
        def configure(address, digest):
            config = replace(
                timm.get_pretrained_cfg(NAME), hf_hub_id=None, url=f"{address}/small-{digest[:8]}.pth"
            )
            monkeypatch.setattr(weights_module, "get_pretrained_cfg", lambda name: config)

        return configure

    def test_weights_are_downloaded_into_torchs_cache_and_loaded(self, configure, original, tmp_path):
        torch.save(original.state_dict(), tmp_path / "small.pth")
        content = (tmp_path / "small.pth").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        file = f"small-{digest[:8]}.pth"
        with serve({f"/{file}": content}) as (address, _):
            configure(address, digest)
            assert obtain(NAME, PUBLISHED, True, lambda *step: None) == f"{file} {digest}"
        assert (tmp_path / "torch" / "hub" / "checkpoints" / file).is_file()
        check_body(make(), original)

    def test_content_with_another_hash_is_not_kept(self, configure, tmp_path):
        with serve({"/small-00000000.pth": b"something else"}) as (address, _):
            configure(address, "0" * 64)
            with pytest.raises(WeightsNotFound, match="invalid hash value") as caught:
                obtain(NAME, PUBLISHED, True, lambda *step: None)
        assert f"download {address}/small-00000000.pth into" in caught.value.hint
        assert list((tmp_path / "torch").rglob("*.pth")) == []


class TestFile:
    """A file that the user names."""

    def test_everything_but_the_classifier_is_loaded(self, original, tmp_path):
        torch.save({"state_dict": original.state_dict(), "epoch": 3}, tmp_path / "mine.pth")
        check_body(make(weights=str(tmp_path / "mine.pth")), original)

    def test_file_with_the_same_number_of_classes_is_loaded_completely(self, tmp_path):
        finished = make(num_classes=5, seed=1, pretrained=False)
        safetensors.torch.save_file(finished.state_dict(), tmp_path / "mine.safetensors")
        network = make(num_classes=5, seed=2, weights=str(tmp_path / "mine.safetensors"))
        assert all(map(torch.equal, network.state_dict().values(), finished.state_dict().values()))

    def test_file_may_have_any_number_of_classes(self, tmp_path):
        finished = make(num_classes=7, pretrained=False)
        torch.save(finished.state_dict(), tmp_path / "seven.pth")
        network = make(seed=1, weights=str(tmp_path / "seven.pth"))
        check_body(network, finished)
        assert network.fc.weight.shape[0] == 2

    @pytest.mark.parametrize(("name", "classifier"), [(NAME, "fc."), ("test_vit", "head.")])
    def test_file_may_lack_the_classifier(self, name, classifier, tmp_path):
        body = make_original(name, num_classes=0)
        torch.save(body.state_dict(), tmp_path / "body.pth")
        network = make(name=name, weights=str(tmp_path / "body.pth"))
        loaded = {k: v for k, v in network.state_dict().items() if not k.startswith(classifier)}
        assert loaded.keys() == body.state_dict().keys()
        assert all(torch.equal(value, body.state_dict()[key]) for key, value in loaded.items())

    def test_identity_is_the_hash_of_the_content(self, tmp_path):
        path = tmp_path / "mine.pth"
        path.write_bytes(b"some weights")
        identity = obtain(NAME, {**PUBLISHED, "weights": str(path)}, False, print)
        assert identity == hashlib.sha256(b"some weights").hexdigest()

    @pytest.mark.parametrize("name", [NAME, "dla46_c"])  # timm itself loads any part of a file into a DLA
    def test_file_of_another_model_is_refused(self, name, tmp_path):
        torch.save(make_original("test_convnext").state_dict(), tmp_path / "other.pth")
        with pytest.raises(XbenchError, match=f"other.pth does not fit timm's {name}: ") as caught:
            make(name=name, weights=str(tmp_path / "other.pth"))
        assert len(caught.value.message) < 600
        assert torch.nn.Module.load_state_dict.__qualname__ == "Module.load_state_dict"

    def test_file_that_lacks_a_part_is_refused(self, original, tmp_path):
        state = {key: value for key, value in original.state_dict().items() if not key.startswith("layer3.")}
        torch.save(state, tmp_path / "part.pth")
        with pytest.raises(XbenchError, match=r"layer3\.0"):
            make(weights=str(tmp_path / "part.pth"))

    def test_name_that_reads_like_an_allocation_is_no_memory_error(self, original, tmp_path):
        torch.save({**original.state_dict(), "allocation.weight": torch.ones(2)}, tmp_path / "more.pth")
        with pytest.raises(XbenchError, match=r"does not fit timm's .*allocation\.weight"):
            make(weights=str(tmp_path / "more.pth"))

    @pytest.mark.parametrize("step", ["timm.models.load_state_dict", "timm.create_model"])
    def test_memory_that_runs_out_is_not_the_files_fault(self, step, original, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

        torch.save(original.state_dict(), tmp_path / "own.pth")
        monkeypatch.setattr(step, fail)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            make(weights=str(tmp_path / "own.pth"))

    def test_file_with_code_is_not_read(self, tmp_path):
        torch.save({"state_dict": torch.nn.Linear(1, 1)}, tmp_path / "code.pth")
        with pytest.raises(XbenchError, match="could run code"):
            make(weights=str(tmp_path / "code.pth"))

    def test_truncated_file_is_refused(self, content, tmp_path):
        (tmp_path / "short.safetensors").write_bytes(content[:100])
        with pytest.raises(XbenchError, match="not a checkpoint, or it is truncated"):
            make(weights=str(tmp_path / "short.safetensors"))

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(XbenchError, match=r"absent\.pth, which is not a file"):
            obtain(NAME, {**PUBLISHED, "weights": str(tmp_path / "absent.pth")}, False, print)


def test_weights_without_pretrained_are_refused():
    settings = {"pretrained": False, "weights": "x.pth"}
    for refuse in (lambda: make(**settings), lambda: obtain(NAME, settings, True, print)):
        with pytest.raises(XbenchError, match="pretrained = false"):
            refuse()


def test_model_without_trained_weights_says_so():
    with pytest.raises(XbenchError, match=r"^timm has no trained weights of botnet50ts_256") as caught:
        obtain("botnet50ts_256", PUBLISHED, True, print)
    assert "`pretrained = false`" in caught.value.hint
    assert not isinstance(caught.value, WeightsNotFound)  # its cells would be skipped, but the suite is wrong
