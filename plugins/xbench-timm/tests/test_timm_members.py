"""Tests of the names of timm's models, and of what is declared of each."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

timm = pytest.importorskip("timm")
pytest.importorskip("xbench_timm")

from xbench import XbenchError  # noqa: E402

import xbench_timm  # noqa: E402
from xbench_timm.members import make_spec  # noqa: E402

pytestmark = pytest.mark.plugin


def test_family_does_not_import_torch_or_timm():
    code = "import sys, xbench_timm; print('torch' in sys.modules, 'timm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(xbench_timm.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "False False", done.stderr


def test_every_name_of_timm_is_listed_once():
    names = xbench_timm.list_members()
    assert set(names) == {*timm.list_models(), *timm.list_models(include_tags=True)}
    assert len(names) == len(set(names))
    assert names.index("resnet18.a1_in1k") > names.index("resnet18")


def test_xbench_shows_a_model_with_its_settings(xbench, tmp_path):
    shown = " ".join(xbench(tmp_path, "info", "timm/vit_tiny_patch16_224").stdout.split())
    assert "pretrained (augreg_in21k_ft_in1k), with 5.7 million parameters" in shown
    assert "takes images of 3 x 224 x 224" in shown
    settings = ("pretrained", "weights", "train", "drop_rate", "drop_path_rate")
    assert all(f"│ {setting} " in shown for setting in settings)


def test_no_other_setting_is_accepted():
    parameters = inspect.signature(make_spec("test_resnet").load_factory()).parameters.values()
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [
        ("resnet10t", None, (0.485, 0.456, 0.406)),
        ("inception_v4", None, (0.5, 0.5, 0.5)),
        ("vit_tiny_patch16_224", (3, 224, 224), (0.5, 0.5, 0.5)),
        ("deit_tiny_patch16_224", (3, 224, 224), (0.485, 0.456, 0.406)),
        ("swin_tiny_patch4_window7_224", (3, 224, 224), (0.485, 0.456, 0.406)),
        ("test_vit", (3, 160, 160), (0.5, 0.5, 0.5)),
    ],
)
def test_shape_and_normalisation_are_those_of_the_weights(name, shape, mean):
    spec = make_spec(name)
    assert (spec.input_shape, spec.mean) == (shape, mean)
    assert len(spec.std) == 3


def test_a_tag_has_its_own_normalisation_and_page():
    first, second = make_spec("tf_efficientnet_b0.in1k"), make_spec("tf_efficientnet_b0.ap_in1k")
    assert first.mean != second.mean
    assert second.reference == "https://huggingface.co/timm/tf_efficientnet_b0.ap_in1k"


@pytest.mark.parametrize(
    ("name", "tables", "outputs"),
    [
        ("resnet10t", set(), set()),
        ("test_vit", {"cls_token", "pos_embed"}, set()),
        ("swin_tiny_patch4_window7_224", {"*.relative_position_bias_table"}, set()),
        ("swinv2_tiny_window8_256", set(), set()),  # a network computes its positions
        ("botnet26t_256", {"*.height_rel", "*.width_rel"}, set()),
        (
            "deit_tiny_distilled_patch16_224",
            {"cls_token", "dist_token", "pos_embed"},
            {"head.*", "head_dist.*"},
        ),
        ("repvit_m1", set(), {"head.head.l.*", "head.head_dist.l.*"}),
    ],
)
def test_tables_and_tokens_are_embeddings_and_all_classifiers_are_outputs(name, tables, outputs):
    roles = make_spec(name).roles
    assert {pattern for pattern, role in roles.items() if role == "embedding"} == tables
    assert {pattern for pattern, role in roles.items() if role == "output"} == outputs


def test_a_name_that_timm_has_changed_is_refused_with_the_new_one():
    with pytest.raises(XbenchError) as caught:
        make_spec("tf_efficientnet_b0_ns")
    assert (
        caught.value.message == "timm has renamed 'tf_efficientnet_b0_ns' to 'tf_efficientnet_b0.ns_jft_in1k'"
    )
    assert caught.value.hint == "write `timm/tf_efficientnet_b0.ns_jft_in1k`"


@pytest.mark.parametrize("name", ["resnet181", "ResNet18", "resnet18.absent"])
def test_unknown_name_gets_a_suggestion(xbench, tmp_path, name):
    done = xbench(tmp_path, "info", f"timm/{name}")
    assert done.returncode == 2
    assert f"without a member '{name}'. Did you mean 'resnet18" in " ".join(done.stderr.split())


def test_encoder_without_a_classifier_is_listed_and_refused_with_the_reason():
    assert "mobilenetv5_300m_enc" in xbench_timm.list_members()
    with pytest.raises(XbenchError, match="is an encoder without a classifier"):
        make_spec("mobilenetv5_300m_enc")
