"""Tests that run suites: ten families, cached features, and batch normalisation."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")
pytest.importorskip("xbench_timm")

# Every cell is a process that imports torch and timm.
pytestmark = [pytest.mark.plugin, pytest.mark.timeout(900)]

# The smallest model of each family, with the side of its images. Those whose size is not fixed take less.
FAMILIES = {
    "test_resnet": 64,
    "test_convnext": 64,
    "test_efficientnet": 64,
    "mobilenetv3_small_050": 64,
    "regnetx_002": 64,
    "densenet121": 64,
    "test_vit": 160,
    "deit_tiny_distilled_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "gmlp_ti16_224": 224,
}

# The shape of the features, or why they are not cached.
FROZEN = {
    "test_vit": ([64], ""),
    "test_efficientnet": ([256], ""),
    # It has two classifiers.
    "deit_tiny_distilled_patch16_224": ([], "the trained parameters are not in one part of the model"),
}

HEAD = """[suite]
name = "timm"
seeds = 1
"""

EXPERIMENT = """
[[experiment]]
name = "{name}"
model = {{ name = "timm/{model}", pretrained = false{settings} }}
dataset = {{ name = "synthetic-xray", train = 4, test = 2, image_size = {side} }}
optimizer = {{ name = "sgd", lr = 1e-3 }}
validation = 0
selection = "last"
epochs = 1
batch_size = {batch_size}
{more}
"""


def join_lines(text):
    return " ".join(text.split())


def name_experiment(model, kind):
    return f"{model.replace('_', '-')}-{kind}"


def write_experiment(model, side, settings=', train = "all"', kind="all", batch_size=2, more=""):
    return EXPERIMENT.format(
        name=name_experiment(model, kind),
        model=model,
        side=side,
        settings=settings,
        batch_size=batch_size,
        more=more,
    )


@pytest.fixture(scope="module")
def cells(run_suite, tmp_path_factory):
    """Run one suite: the ten families, and three of them with a frozen part. Returns cells by experiment."""
    folder = tmp_path_factory.mktemp("families")
    whole = [write_experiment(name, side) for name, side in FAMILIES.items()]
    heads = [write_experiment(name, FAMILIES[name], settings="", kind="head") for name in FROZEN]
    (folder / "families.toml").write_text(HEAD + "".join([*whole, *heads]))
    return run_suite(folder, "families.toml")


@pytest.mark.parametrize("name", FAMILIES)
def test_ten_families_train_for_two_steps(name, cells):
    cell = cells[name_experiment(name, "all")]
    assert (cell["status"], cell["steps"]) == ("done", 2), cell["reason"]
    assert cell["model"]["stand_in"] == "random weights"
    assert cell["model"]["origin"].startswith("xbench-timm 0.1.0 (")
    assert cell["memory_pass"]["peak_bytes"] > cell["memory_pass"]["parameters_bytes"] > 0
    assert cell["metrics"]["test_loss"] > 0


def test_parameters_have_their_roles(cells):
    roles = {name: cells[name_experiment(name, "all")]["parameters_by_role"] for name in FAMILIES}
    assert roles["test_vit"].keys() == {"embedding", "hidden", "output"}
    assert roles["test_resnet"].keys() == {"hidden", "output"}
    assert roles["deit_tiny_distilled_patch16_224"]["output"] == 2 * (192 * 2 + 2)


@pytest.mark.parametrize("name", FROZEN)
def test_features_of_the_frozen_part_are_cached_where_one_part_is_trained(name, cells):
    cell = cells[name_experiment(name, "head")]
    assert (cell["status"], cell["steps"]) == ("done", 2), cell["reason"]
    assert (cell["features"]["shape"], cell["features"]["note"]) == FROZEN[name]


def test_batch_normalisation_refuses_micro_batches_unless_it_is_frozen(xbench, tmp_path):
    half = {"batch_size": 4, "more": "micro_batch = 2"}
    experiments = [
        write_experiment("test_resnet", 64, **half),
        write_experiment("test_efficientnet", 64, settings="", **half),
        write_experiment("test_vit", 160, **half),
    ]
    (tmp_path / "micro.toml").write_text(HEAD + "".join(experiments))
    done = xbench(tmp_path, "run", "micro.toml", "--dry-run")
    assert done.returncode == 2
    told = join_lines(done.stderr)
    assert "model 'timm/test_resnet' has batch normalisation: batches of 4 in" in told
    assert 'use micro_batch = "full"' in told
    assert "test_efficientnet" not in told and "test_vit" not in told


def test_missing_weights_are_reported_before_the_run_with_what_to_do(xbench, tmp_path):
    experiment = write_experiment("test_vit", 160).replace("pretrained = false, ", "")
    (tmp_path / "missing.toml").write_text(HEAD + experiment)
    done = xbench(tmp_path, "run", "missing.toml", "--dry-run")
    assert done.returncode == 0, done.stderr  # its cells would be skipped
    told = join_lines(done.stdout + done.stderr)
    assert "the weights of timm/test_vit are not on this machine" in told
    assert "hf download timm/test_vit.r160_in1k model.safetensors" in told


def test_settings_that_a_model_cannot_have_are_errors_in_the_suite(xbench, tmp_path):
    wrong = {"densenet121": ", drop_path_rate = 0.1", "test_resnet": ', train = "layer9.*"'}
    experiments = [write_experiment(name, 64, more) for name, more in wrong.items()]
    (tmp_path / "wrong.toml").write_text(HEAD + "".join(experiments))
    done = xbench(tmp_path, "run", "wrong.toml", "--dry-run")
    assert done.returncode == 2
    told = join_lines(done.stderr)
    assert "timm's densenet121 has no drop_path_rate" in told
    assert "'layer9.*' does not match any parameter of timm's test_resnet" in told
    assert "Traceback" not in told
