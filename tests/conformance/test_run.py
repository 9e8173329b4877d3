"""Checks in child processes: what a component does to its process is a failed check."""

from __future__ import annotations

import pytest

from tests.conformance import optimizer_parts as parts
from xbench import OptimizerSpec, XbenchError
from xbench.components.registry import KINDS, registrations
from xbench.conformance.checks import CHECKS
from xbench.conformance.child import find_functions
from xbench.conformance.run import check, find_subjects
from xbench.testing import check_optimizer, conformance

COMMON = {"loads", "listing", "settings"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_function(kind):
    assert set(CHECKS[kind]) - COMMON == set(find_functions(kind))


def test_a_component_that_ends_its_process_fails_one_check():
    with pytest.raises(AssertionError) as raised:
        check_optimizer(parts.Dying, checks=["loads", "loss", "trial"])
    (line,) = str(raised.value).splitlines()
    assert line.startswith("optimizer 'Dying under test', loss: ")


def test_a_component_that_hangs_fails_one_check(tmp_path):
    (tmp_path / "slow.py").write_text("from tests.conformance.optimizer_parts import Hanging")
    (subject,) = find_subjects("slow:Hanging", {}, [str(tmp_path)])
    found = {one.check: one for one in check(subject, ["loads", "loss"], timeout_s=3)}
    assert found["loads"].outcome == "pass"
    assert found["loss"].outcome == "fail"


def test_a_component_that_cannot_be_loaded_fails_the_first_check(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from xbench import OptimizerSpec\nSPEC = OptimizerSpec(factory='missing:build')\n"
    )
    (subject,) = find_subjects("broken:SPEC", {}, [str(tmp_path)])
    first, *others = check(subject)
    assert first.outcome == "fail"
    assert "No module named 'missing'" in first.text
    assert {one.outcome for one in others} == {"not applicable"}


def test_a_spec_whose_module_imports_torch_fails_the_listing(tmp_path):
    (tmp_path / "heavy.py").write_text(
        "import torch\nfrom xbench import OptimizerSpec\nSPEC = OptimizerSpec(factory=torch.optim.SGD)\n"
    )
    (subject,) = find_subjects("heavy:SPEC", {}, [str(tmp_path)])
    (found,) = check(subject, ["listing"])
    assert found.outcome == "fail"
    assert "imports torch" in found.text


def test_a_model_that_an_optimizer_does_not_support_is_not_a_failure():
    found = check_optimizer(parts.Choosy, checks=["loads", "trial", "loss", "resume"])
    assert [one.outcome for one in found] == ["pass", "pass", "not applicable", "not applicable"]
    assert {one.text for one in found[2:]} == {"needs 2 parameters, not 9"}


def test_required_settings_are_asked_for():
    (subject,) = find_subjects("folder", {})
    found = {one.check: one for one in check(subject, ["settings", "rows"])}
    assert found["settings"].outcome == "fact"
    assert found["rows"].outcome == "not applicable"
    assert "'root'" in found["rows"].text


def test_a_wrong_setting_is_refused():
    for settings, said in [
        ({"momentun": 0.9}, "optimizer 'sgd': unknown setting 'momentun'. Did you mean 'momentum'?"),
        ({"lr": "x"}, "optimizer 'sgd': 'lr' should be"),
    ]:
        (subject,) = find_subjects("sgd", settings)
        with pytest.raises(XbenchError) as raised:
            check(subject, ["loads", "loss"])
        assert raised.value.message.startswith(said)
        assert raised.value.hint == "`xbench info sgd` lists its settings"


def test_a_factory_without_a_signature_fails(tmp_path):
    (tmp_path / "odd.py").write_text("from xbench import OptimizerSpec\nSPEC = OptimizerSpec(factory=dict)\n")
    (subject,) = find_subjects("odd:SPEC", {"lr": 0.1}, [str(tmp_path)])
    found = check(subject, ["loads", "settings"])
    assert [one.outcome for one in found] == ["pass", "fail"]
    assert "signature" in found[1].text


def test_the_optimizer_of_other_parameters_can_be_set():
    for rest in ("sgd", {"name": "sgd", "lr": 0.1}):
        (subject,) = find_subjects("muon", {"rest": rest})
        assert check(subject, ["settings"])[0].outcome == "pass"
    for rest, said in [
        ({"lr": 0.1}, "'rest' should be the name of an optimizer"),
        (1, "'rest' should be the name of an optimizer"),
        ("adm", "unknown optimizer 'adm'"),
        ({"name": "sgd", "lrr": 0.1}, "rest = 'sgd': unknown setting 'lrr'"),
    ]:
        (subject,) = find_subjects("muon", {"rest": rest})
        with pytest.raises(XbenchError, match=said):
            check(subject, ["settings"])


@pytest.mark.parametrize(
    ("name", "partner", "said"),
    [
        ("mlp", "quadratik", "unknown dataset 'quadratik'. Did you mean 'quadratic'?"),
        ("quadratic", "mpl", "unknown model 'mpl'. Did you mean 'mlp'?"),
        ("adam", "mlp", "optimizer 'adam' cannot be checked with 'mlp'"),
    ],
)
def test_a_wrong_partner_is_refused(name, partner, said):
    subject = find_subjects(name, {}, partner=partner)[0]
    with pytest.raises(XbenchError) as raised:
        check(subject, ["loads"])
    assert raised.value.message == said


def test_a_family_stands_for_its_members():
    subjects = find_subjects("torchvision", {})
    assert "torchvision/resnet18" in [subject.name for subject in subjects]


def test_a_member_that_a_family_declines_is_not_a_failure(tmp_path, monkeypatch):
    (tmp_path / "clan.py").write_text(
        "from xbench import Family, OptimizerSpec, XbenchError\n"
        "def member(name):\n"
        "    if name == 'shy':\n"
        "        raise XbenchError('it needs a server')\n"
        "    return OptimizerSpec(factory='torch.optim:SGD' if name == 'sgd' else 'torch.optim:Missing')\n"
        "CLAN = Family(member=member, members=lambda: ['broken', 'sgd', 'shy'])\n"
    )
    (tmp_path / "clan-1.0.dist-info").mkdir()
    (tmp_path / "clan-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: clan\nVersion: 1.0\n")
    (tmp_path / "clan-1.0.dist-info/entry_points.txt").write_text("[xbench.optimizers]\nclan = clan:CLAN\n")
    monkeypatch.syspath_prepend(tmp_path)
    registrations.cache_clear()
    try:
        subjects = find_subjects("clan", {})
        with pytest.raises(XbenchError, match=r"without a member 'sdg'. Did you mean 'sgd'\?"):
            find_subjects("clan/sdg", {})
        found = {subject.name: check(subject, ["loads", "listing"]) for subject in subjects}
    finally:
        registrations.cache_clear()
    assert {name: [one.outcome for one in findings] for name, findings in found.items()} == {
        "clan/broken": ["fail", "not applicable"],
        "clan/sgd": ["pass", "pass"],
        "clan/shy": ["not applicable", "not applicable"],
    }
    assert found["clan/shy"][0].text == "it needs a server"


def test_unknown_names_are_refused():
    with pytest.raises(XbenchError, match=r"unknown component 'adm'. Did you mean 'adam'\?"):
        find_subjects("adm", {})
    (subject,) = find_subjects("adam", {})
    with pytest.raises(XbenchError, match="unknown check 'los'"):
        check(subject, ["los"])


def test_an_optimizer_passes_by_name_and_as_a_factory():
    names = ["loss", "resume"]
    by_name = check_optimizer("sgd", settings={"momentum": 0.9}, checks=names)
    as_factory = check_optimizer(parts.Momentum, checks=names)
    assert [one.outcome for one in by_name] == ["pass", "pass"]
    assert [one.outcome for one in as_factory] == ["pass", "fact"]


def test_a_test_is_made_of_each_check():
    made = conformance("optimizer", parts.Forgetful, {"lr": 0.2})
    (mark,) = made.pytestmark
    assert mark.args == ("check", CHECKS["optimizer"])
    made("loss")
    with pytest.raises(pytest.skip.Exception, match="closure once"):
        made("line-search")


def test_a_failed_check_fails_its_test():
    made = conformance("optimizer", OptimizerSpec(factory=parts.Forgetful, resumable=True))
    with pytest.raises(
        pytest.fail.Exception, match=r"^optimizer 'optimizer under test', resume: resumable=True, but"
    ):
        made("resume")
