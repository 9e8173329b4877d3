"""Tests of families: naming a member of an entry point, and messages about mistakes."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from textwrap import dedent

import pytest

from xbench.cli.info import info
from xbench.cli.listing import What, list_components
from xbench.components import registry
from xbench.components.registry import load, origin, registrations
from xbench.components.specs import Family, ModelSpec, OptimizerSpec
from xbench.errors import XbenchError

FAMILIES = """
from xbench import Family, ModelSpec, OptimizerSpec, XbenchError

def build(num_classes, width=8):
    return width

def model(name):
    if name == "broken":
        raise ZeroDivisionError("woe")
    if name == "alien":
        return OptimizerSpec(factory=build)
    if name == "nested":
        return MODELS
    if name not in ("small", "large", "of/old"):
        raise XbenchError(f"no '{name}' here", hint="small or large")
    return ModelSpec(factory=build, summary=f"the {name} one")

MODELS = Family(member=model, summary="models of ours")
OPTIMIZERS = Family(member=lambda name: OptimizerSpec(factory=build), summary="optimizers of ours")
LATE = Family(member="own_absent:member", summary="cannot be used")


def listed(name):
    if name == "former":
        raise XbenchError("'former' is now 'small'")
    summary = "" if name == "any" else SUMMARIES[name]
    return OptimizerSpec(factory=build, summary=summary)

SUMMARIES = {"small": "the small one", "large": "the large one"}
LISTED = Family(member=listed, members=lambda: list(SUMMARIES))
LONGER = Family(member=listed, members=lambda: ["small", "tiny", "adan"])
UNLISTED = Family(member=listed, members=lambda: 1 / 0)
NUMBER = 3
"""


@pytest.fixture
def families(tmp_path, monkeypatch):
    """Add entry points to the installed ones."""
    (tmp_path / "own_families.py").write_text(dedent(FAMILIES))
    monkeypatch.syspath_prepend(tmp_path)
    names = {
        "xbench.models": {"ours": "MODELS", "late": "LATE", "odd": "NUMBER", "both": "MODELS"},
        "xbench.optimizers": {
            "ours-too": "OPTIMIZERS",
            "both": "OPTIMIZERS",
            "listed": "LISTED",
            "longer": "LONGER",
            "unlisted": "UNLISTED",
        },
    }
    installed = registry.entry_points

    def entry_points(group):
        own = names.get(group, {}).items()
        return [*installed(group=group), *(EntryPoint(n, f"own_families:{a}", group) for n, a in own)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registrations.cache_clear()
    yield
    registrations.cache_clear()
    sys.modules.pop("own_families", None)


def test_a_member_is_loaded_by_the_name_of_its_family_and_its_own(families):
    spec = load("model", "ours/small")
    assert type(spec) is ModelSpec
    assert spec.summary == "the small one"
    assert load("model", "ours/of/old").summary == "the of/old one"  # only the first "/" counts


def test_every_kind_can_have_families(families):
    assert type(load("optimizer", "ours-too/x")) is OptimizerSpec
    assert type(load("optimizer", "both/small")) is OptimizerSpec
    assert type(load("model", "both/small")) is ModelSpec


@pytest.mark.parametrize("reference", ["ours", "ours/"])
def test_family_without_a_member_is_refused(families, reference):
    with pytest.raises(XbenchError) as caught:
        load("model", reference)
    assert caught.value.message == "'ours' is a family of models: name one of them as `ours/NAME`"
    assert "xbench info ours" in caught.value.hint


@pytest.mark.parametrize("reference", ["report-cnn/x", "report-cnn/"])
def test_component_that_is_not_a_family_has_no_members(reference):
    with pytest.raises(XbenchError, match="'report-cnn' is not a family, so there is no 'report-cnn/"):
        load("model", reference)


def test_unknown_family_gets_a_suggestion():
    with pytest.raises(XbenchError) as caught:
        load("model", "torchvison/efficientnet_v2_s")
    assert caught.value.message == (
        "unknown model 'torchvison/efficientnet_v2_s'. Did you mean 'torchvision'?"
    )


def test_unknown_member_gets_a_suggestion():
    with pytest.raises(XbenchError, match=r"'resnt18'\. Did you mean 'resnet18'\?"):
        load("model", "torchvision/resnt18")


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("small", " Did you mean 'listed/small' or 'longer/small'?"),
        ("Tiny", " Did you mean 'longer/tiny'?"),
        ("adan", " Did you mean 'longer/adan'?"),  # which is not a typo of `adam`
        ("smal", ""),
        ("adma", " Did you mean 'adam'?"),
    ],
)
def test_name_of_a_member_gets_its_family(families, name, guess):
    with pytest.raises(XbenchError) as caught:
        load("optimizer", name)
    assert caught.value.message == f"unknown optimizer '{name}'.{guess}"
    with pytest.raises(XbenchError) as caught:
        info(name)
    assert caught.value.message == f"unknown component '{name}'.{guess}"


def test_name_of_a_model_gets_its_family():
    with pytest.raises(XbenchError, match=r"'resnet18'\. Did you mean 'torchvision/resnet18'\?"):
        load("model", "resnet18")


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("ours/none", "^no 'none' here$"),
        ("ours/broken", "'ours/broken' of no distribution is broken: ZeroDivisionError: woe"),
        ("ours/alien", r"'ours/alien' of no distribution is a OptimizerSpec, not an xbench\.ModelSpec"),
        ("ours/nested", r"is a Family, not an xbench\.ModelSpec"),
        ("late/x", "'own_absent:member' cannot be imported"),
        ("odd/x", r"is a int, not an xbench\.ModelSpec"),
    ],
)
def test_message_names_what_is_wrong_with_a_member(families, reference, complaint):
    with pytest.raises(XbenchError) as caught:
        load("model", reference)
    assert re.search(complaint, caught.value.message)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("listed/smal", "'listed' is a family of optimizers without a member 'smal'. Did you mean 'small'?"),
        (
            "listed/SMALL",
            "'listed' is a family of optimizers without a member 'SMALL'. Did you mean 'small'?",
        ),
        ("listed/any", "'listed' is a family of optimizers without a member 'any'."),
        ("listed/former", "'former' is now 'small'"),
        (
            "unlisted/small",
            "the members of optimizers 'unlisted' of no distribution cannot be listed: "
            "ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_name_that_a_family_does_not_list_is_refused(families, reference, message):
    with pytest.raises(XbenchError) as caught:
        load("optimizer", reference)
    assert caught.value.message.startswith(message)


def test_a_name_that_a_family_lists_is_loaded(families):
    assert load("optimizer", "listed/small").summary == "the small one"


def test_a_member_comes_from_the_distribution_of_its_family(families):
    assert origin("model", "torchvision/resnet18").startswith("xbench ")
    assert origin("model", "torchvision/resnet18") == origin("model", "report-cnn")
    assert origin("model", "ours/small") == "no distribution"
    assert origin("model", "absent/small") == ""
    assert origin("model", "torchvision:build") == ""


def test_a_registration_of_a_family_loads_as_one_without_asking_for_members(families):
    assert isinstance(registrations("model")["late"].load(), Family)


def test_a_listing_shows_a_family_in_one_row(families, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    list_components(What.MODELS)
    rows = [line for line in capsys.readouterr().out.splitlines() if "ours/" in line]
    assert len(rows) == 1
    assert "models of ours" in rows[0]


def test_info_of_a_member_shows_its_settings(families, capsys):
    info("ours/small")
    told = capsys.readouterr().out
    assert "model ours/small the small one" in told
    assert "width" in told


def test_info_of_a_family_lists_its_members_if_it_can(families, capsys):
    info("ours")
    told = capsys.readouterr().out
    assert "model ours models of ours" in told and "xbench info ours/NAME" in told
    info("torchvision")
    told = capsys.readouterr().out.splitlines()
    assert "a family of 80:" in told
    assert {"torchvision/resnet18", "torchvision/vit_h_14"} <= set(told)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("torchvison/resnet18", r"unknown component .* Did you mean 'torchvision'\?"),
        ("torchvision/resnt18", r"Did you mean 'resnet18'\?"),
        ("report-cnn/x", "is not a family"),
    ],
)
def test_info_of_an_unknown_name_is_an_error(name, complaint):
    with pytest.raises(XbenchError, match=complaint):
        info(name)
