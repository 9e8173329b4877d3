"""Tests of finding built-in components, plugins (broken ones too), and a user's own code."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from textwrap import dedent

import pytest

from xbench.cli.plugins import list_plugins
from xbench.components import registry
from xbench.components.registry import KINDS, load, registrations, suggest_name, write_listing_hint
from xbench.components.specs import DatasetSpec, Family, ModelSpec, OptimizerSpec
from xbench.errors import XbenchError

SPEC_TYPES = {"model": ModelSpec, "dataset": DatasetSpec, "optimizer": OptimizerSpec}

GOOD_MODULE = """
from xbench import DatasetSpec, ModelSpec, OptimizerSpec

def build(params, lr=1e-3):
    pass

OPTIMIZER = OptimizerSpec(factory=build, summary="fine")
MODEL = ModelSpec(factory=build)
NUMBER = 3
"""


class Site:
    """A folder of installed packages that only one test sees."""

    def __init__(self, folder: Path):
        self.folder = folder

    def install(
        self,
        distribution: str,
        modules: dict[str, str] | None = None,
        requires: tuple[str, ...] = (),
        **claims: str,
    ) -> None:
        """Lay out `DISTRIBUTION-1.0`; each claim is `optimizers="name = module:attribute"` and the like."""
        info = self.folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        lines = [f"Name: {distribution}", "Version: 1.0", *(f"Requires-Dist: {name}" for name in requires)]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
        groups = [f"[xbench.{group}]\n{dedent(lines)}\n" for group, lines in claims.items()]
        (info / "entry_points.txt").write_text("\n".join(groups))
        for name, source in (modules or {}).items():
            (self.folder / f"{name}.py").write_text(dedent(source))
        importlib.invalidate_caches()
        registrations.cache_clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    registrations.cache_clear()


@pytest.fixture
def code_dir(tmp_path, monkeypatch):
    """Make a folder for a user's own modules, and undo the changes to `sys` when they are imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def of_xbench(kind):
    """List the built-in components only, because plugins may be installed."""
    return [r for r in registrations(kind).values() if any(d.startswith("xbench ") for d in r.distributions)]


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_components_load_with_a_summary(kind):
    found = of_xbench(kind)
    assert found
    for registration in found:
        spec = registration.load()
        assert spec.summary and "\n" not in spec.summary, registration.name
        if not isinstance(spec, Family):
            assert type(spec) is SPEC_TYPES[kind], registration.name
            assert callable(spec.load_factory()), registration.name


def test_built_in_names():
    assert [r.name for r in of_xbench("model")] == [
        "factorisation",
        "gpt-mini",
        "linear",
        "mlp",
        "point",
        "report-cnn",
        "torchvision",
        "vgg16",
    ]
    assert [r.name for r in of_xbench("dataset")] == [
        "beale",
        "breast-cancer",
        "chest-xray",
        "diabetes",
        "digits",
        "folder",
        "generated-text",
        "least-squares",
        "logistic-regression",
        "matrix-factorisation",
        "poisson-1d",
        "poisson-2d",
        "quadratic",
        "rastrigin",
        "rosenbrock",
        "synthetic-xray",
        "text-file",
        "wine",
    ]


def test_every_optimizer_of_torch_is_registered_under_its_name():
    import torch

    classes = {
        value
        for value in vars(torch.optim).values()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    } - {torch.optim.Optimizer}
    factories = {r.name: r.load().load_factory() for r in of_xbench("optimizer")}
    assert set(factories.values()) == classes
    assert len(classes) == 15
    assert all(name == factory.__name__.lower() for name, factory in factories.items())


def test_registrations_are_sorted_and_know_their_kind(site):
    site.install("foo", optimizers="zz = foo_good:OPTIMIZER\naa = foo_good:OPTIMIZER")
    known = registrations("optimizer")
    assert list(known) == sorted(known)
    assert {"aa", "zz", "adam"} <= set(known)
    assert all((r.kind, r.name) == ("optimizer", name) for name, r in known.items())
    assert "aa" not in registrations("model")


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_name_gets_a_suggestion_and_a_hint(kind):
    name = of_xbench(kind)[0].name
    with pytest.raises(XbenchError) as caught:
        load(kind, name[:-1])
    assert caught.value.message == f"unknown {kind} '{name[:-1]}'. Did you mean '{name}'?"
    assert caught.value.hint == write_listing_hint(kind)
    assert caught.value.hint == f"`xbench list {kind}s` shows all {len(registrations(kind))}"


def test_name_without_a_similar_one_gets_no_suggestion():
    with pytest.raises(XbenchError) as caught:
        load("optimizer", "qqqqqqqq")
    assert caught.value.message == "unknown optimizer 'qqqqqqqq'."
    assert suggest_name("lbgfs", ["adam", "lbfgs"]) == " Did you mean 'lbfgs'?"
    assert suggest_name("lbgfs", []) == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("adma", "adam"),
        ("adawm", "adamw"),
        ("Adam", "adam"),
        ("LBFGS", "lbfgs"),
        ("l-bfgs", "lbfgs"),
        ("sdg", "sgd"),
        ("andam", "nadam"),
        ("rmsporp", "rmsprop"),
        ("adagard", "adagrad"),
        ("moun", "muon"),
        ("SparseAdam", "sparseadam"),
    ],
)
def test_the_name_with_the_fewest_edits_is_suggested(typed, meant):
    assert suggest_name(typed, registrations("optimizer")) == f" Did you mean '{meant}'?"


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_letters_are_recognised_in_every_name(kind):
    names = [registration.name for registration in of_xbench(kind)]
    for name in names:
        for i in range(len(name) - 1):
            typed = name[:i] + name[i + 1] + name[i] + name[i + 2 :]
            if typed not in names:
                assert suggest_name(typed, names) == f" Did you mean '{name}'?"


def test_names_of_one_kind_are_unknown_to_another():
    with pytest.raises(XbenchError, match="unknown model 'adam'"):
        load("model", "adam")


def test_a_plugin_is_found_without_being_imported(site):
    source = "raise RuntimeError('imported while listing')"
    site.install("foo", {"foo_raises": source}, optimizers="foo-opt = foo_raises:OPTIMIZER")
    registration = registrations("optimizer")["foo-opt"]
    assert registration.distributions == ("foo 1.0",)
    assert "foo_raises" not in sys.modules


def test_a_plugin_loads_as_built_ins_do(site):
    site.install("foo", {"foo_good": GOOD_MODULE}, optimizers="foo-opt = foo_good:OPTIMIZER")
    assert load("optimizer", "foo-opt").summary == "fine"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_plugin_with_a_removed_field_loads_with_a_warning(site, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    source = GOOD_MODULE + "DATASET = DatasetSpec(factory=build, is_listed=True)\n"
    claims = {"datasets": "foo-data = foo_old:DATASET", "models": "foo-net = foo_old:MODEL"}
    site.install("foo", {"foo_old": source}, **claims)
    assert load("dataset", "foo-data").load_factory()
    list_plugins()
    rows = {
        name: line
        for line in capsys.readouterr().out.splitlines()
        for name in ("foo-data", "foo-net")
        if name in line
    }
    assert "ok, but delete is_listed" in rows["foo-data"]
    assert "delete" not in rows["foo-net"]


@pytest.mark.parametrize(
    ("claim", "complaint"),
    [
        ("foo-opt = foo_missing:OPTIMIZER", "ModuleNotFoundError: No module named 'foo_missing'$"),
        ("foo-opt = foo_good:ABSENT", "AttributeError: .*ABSENT"),
        ("foo-opt = foo_raises:OPTIMIZER", r"RuntimeError: two lines of woe \(foo_raises\.py:1\)$"),
        ("foo-opt = foo_syntax:OPTIMIZER", "SyntaxError: "),
        ("foo-opt = no reference", "cannot be imported"),
        ("foo-opt = foo_good:NUMBER", r"is a int, not an xbench\.OptimizerSpec"),
        ("foo-opt = foo_good:MODEL", r"is a ModelSpec, not an xbench\.OptimizerSpec"),
        ("foo-opt = foo_good:build", r"is a function, not an xbench\.OptimizerSpec"),
    ],
)
def test_broken_plugin_does_not_affect_others(site, claim, complaint):
    modules = {
        "foo_good": GOOD_MODULE,
        "foo_raises": "raise RuntimeError('two lines\\n   of woe')",
        "foo_syntax": "def (:",
    }
    site.install("foo", modules, optimizers=f"{claim}\nfoo-fine = foo_good:OPTIMIZER")
    with pytest.raises(XbenchError, match=complaint) as caught:
        load("optimizer", "foo-opt")
    assert caught.value.message.startswith("optimizer 'foo-opt' of foo 1.0 (")
    assert "\n" not in caught.value.message
    assert load("optimizer", "foo-fine").summary == "fine"
    assert load("optimizer", "adam").factory == "torch.optim:Adam"


def test_a_plugin_that_exits_on_import_is_broken_too(site):
    source = "raise SystemExit('no GPU')"
    site.install("foo", {"foo_exits": source}, optimizers="foo-opt = foo_exits:OPTIMIZER")
    with pytest.raises(XbenchError, match=r"'foo-opt' of foo 1\.0 .*SystemExit: no GPU"):
        load("optimizer", "foo-opt")


def test_origin_names_the_packages_that_a_plugin_requires(site):
    site.install("wrapped")
    needs = ("wrapped>=1", "torch>=2", "xbench", "absent", 'pytest; extra == "test"')
    site.install("foo", {"foo_code": GOOD_MODULE}, needs, optimizers="foo-opt = foo_code:OPTIMIZER")
    assert registry.origin("optimizer", "foo-opt") == "foo 1.0 (absent is missing, wrapped 1.0)"
    assert registry.origin("optimizer", "sgd") == f"xbench {importlib.metadata.version('xbench')}"


def test_a_name_that_two_distributions_claim_is_an_error_that_names_both(site):
    modules = {"foo_good": GOOD_MODULE}
    site.install("foo", modules, optimizers="twice = foo_good:OPTIMIZER\nonce = foo_good:OPTIMIZER")
    site.install("bar", optimizers="twice = foo_good:OPTIMIZER")
    with pytest.raises(XbenchError) as caught:
        load("optimizer", "twice")
    message = caught.value.message
    assert message.startswith("optimizer 'twice' is claimed by ")
    assert "foo 1.0" in message and "bar 1.0" in message
    assert set(registrations("optimizer")["twice"].distributions) == {"foo 1.0", "bar 1.0"}
    assert load("optimizer", "once").summary == "fine"


def test_a_plugin_cannot_replace_a_built_in(site):
    site.install("foo", {"foo_good": GOOD_MODULE}, optimizers="adam = foo_good:OPTIMIZER")
    with pytest.raises(XbenchError, match="'adam' is claimed by") as caught:
        load("optimizer", "adam")
    assert "foo 1.0" in caught.value.message and " xbench " in caught.value.message


def test_two_kinds_may_share_a_name(site):
    claim = "both = foo_good:{}"
    site.install(
        "foo",
        {"foo_good": GOOD_MODULE},
        optimizers=claim.format("OPTIMIZER"),
        models=claim.format("MODEL"),
    )
    assert isinstance(load("optimizer", "both"), OptimizerSpec)
    assert isinstance(load("model", "both"), ModelSpec)


def test_distribution_that_is_listed_twice_makes_one_claim(site, tmp_path, monkeypatch):
    site.install("foo", {"foo_good": GOOD_MODULE}, optimizers="foo-opt = foo_good:OPTIMIZER")
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.syspath_prepend(again)
    Site(again).install("foo", optimizers="foo-opt = foo_good:OPTIMIZER")
    assert registrations("optimizer")["foo-opt"].distributions == ("foo 1.0",)
    assert load("optimizer", "foo-opt").summary == "fine"


def test_own_code_is_refused_and_not_imported_without_a_folder(code_dir, monkeypatch):
    (code_dir / "own_refused.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(code_dir)  # importable, but not allowed
    with pytest.raises(XbenchError) as caught:
        load("optimizer", "own_refused:build")
    assert "own_refused:build" in caught.value.message
    assert "--allow-import DIR" in caught.value.hint
    assert "own_refused" not in sys.modules


@pytest.mark.parametrize("kind", KINDS)
def test_own_factory_becomes_a_spec_of_the_requested_kind(code_dir, kind):
    (code_dir / f"own_{kind}.py").write_text("def build(*args, lr=1): return 'made'")
    spec = load(kind, f"own_{kind}:build", [str(code_dir)])
    assert type(spec) is SPEC_TYPES[kind]
    assert spec.load_factory()(None) == "made"
    assert spec.summary == f"imported from own_{kind}"


def test_own_spec_is_used_unchanged(code_dir):
    (code_dir / "own_spec.py").write_text(GOOD_MODULE)
    assert load("optimizer", "own_spec:OPTIMIZER", [str(code_dir)]).summary == "fine"


def test_a_problem_may_name_registered_components(code_dir):
    source = "from xbench import Problem\nONE = Problem(model='torchvision/resnet18', dataset='digits')\n"
    (code_dir / "own_problem.py").write_text(source)
    for kind, name in (("model", "torchvision/resnet18"), ("dataset", "digits")):
        found = load(kind, "own_problem:ONE", [str(code_dir)])
        assert type(found) is SPEC_TYPES[kind]
        assert found.summary == load(kind, name).summary


def test_a_name_in_a_problem_that_is_unknown_gets_a_suggestion(code_dir):
    source = "from xbench import Problem\nONE = Problem(model='mpl', dataset='digit')\n"
    (code_dir / "own_misnamed.py").write_text(source)
    with pytest.raises(XbenchError) as caught:
        load("model", "own_misnamed:ONE", [str(code_dir)])
    assert caught.value.message == "model 'own_misnamed:ONE': unknown model 'mpl'. Did you mean 'mlp'?"
    assert caught.value.hint == write_listing_hint("model")


def test_own_code_is_searched_for_in_every_folder(code_dir, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    (code_dir / "own_second.py").write_text(GOOD_MODULE)
    assert load("optimizer", "own_second:OPTIMIZER", [str(first), str(code_dir)]).summary == "fine"


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("own_absent:build", "cannot be imported: ModuleNotFoundError: No module named 'own_absent'"),
        ("own_broken:build", "cannot be imported: ZeroDivisionError: division by zero"),
        ("own_fine:absent", "cannot be imported: AttributeError: .*absent"),
        ("own_fine:NUMBER", "is a int, not a factory or a spec"),
        ("own_fine:MODEL", r"is a ModelSpec, not an xbench\.OptimizerSpec"),
        (":build", "cannot be imported"),
        ("own_fine:", "cannot be imported"),
    ],
)
def test_message_names_what_is_wrong_with_own_code(code_dir, reference, complaint):
    (code_dir / "own_broken.py").write_text("1 / 0")
    (code_dir / "own_fine.py").write_text(GOOD_MODULE)
    with pytest.raises(XbenchError, match=complaint) as caught:
        load("optimizer", reference, [str(code_dir)])
    assert caught.value.message.startswith(f"optimizer '{reference}' ")


def test_own_code_that_exits_is_reported(code_dir):
    (code_dir / "own_exits.py").write_text("raise SystemExit('no GPU')")
    with pytest.raises(XbenchError, match="'own_exits:build' cannot be imported: SystemExit: no GPU"):
        load("optimizer", "own_exits:build", [str(code_dir)])


def test_hint_names_the_searched_folders(code_dir):
    with pytest.raises(XbenchError) as caught:
        load("model", "own_absent:build", ["elsewhere", str(code_dir)])
    assert f"elsewhere, {code_dir}" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_cannot_be_changed(kind):
    spec = of_xbench(kind)[0].load()
    for attribute in ("factory", "summary", "reference"):
        with pytest.raises(FrozenInstanceError):
            setattr(spec, attribute, "other")
    assert spec is of_xbench(kind)[0].load()


def test_factory_may_be_a_callable_or_a_string():
    def build(params):
        return params

    assert OptimizerSpec(factory=build).load_factory() is build
    assert OptimizerSpec(factory="xbench.components.registry:load").load_factory() is registry.load
