"""Tests of optimizers that the package needs help for."""

from __future__ import annotations

import pytest

pytest.importorskip("pytorch_optimizer")
pytest.importorskip("xbench_pytorch_optimizer")

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer import shampoo
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from pytorch_optimizer.optimizer.utils.preconditioner import PreConditioner
from small_networks import Factors, Network
from torch import nn
from xbench import Unsupported
from xbench.conformance.problem import build_shapes
from xbench.testing import start_training

from xbench_pytorch_optimizer import load_member
from xbench_pytorch_optimizer.catalogue import ENTRIES
from xbench_pytorch_optimizer.fill import jump_to_period, jump_to_resampling

pytestmark = pytest.mark.plugin


def start(name, settings=None, network=Network):
    return start_training(load_member(name), settings, network)


def build(name, first, **settings):
    return load_member(name).load_factory()(first, **settings)


def flat_gradient_step(optimizer, parameter, gradient):
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.detach().flatten()


class TestFused:
    @pytest.mark.parametrize("name", ["lomo", "adalomo"])
    def test_hooks_update_nothing_outside_of_a_step(self, name):
        training = start(name)
        training.step()
        before = training.weights()
        training.model(torch.randn(4, 8), torch.zeros(4, 3, dtype=torch.long)).sum().backward()
        assert torch.equal(training.weights(), before)
        assert all(p.grad is not None for p in training.model.parameters())

    def test_lomo_is_gradient_descent(self):
        lomo = start("lomo", {"lr": 0.1})
        descent = start("sgd", {"lr": 0.1})
        for training in (lomo, descent):
            training.step(5)
        assert torch.allclose(lomo.weights(), descent.weights(), atol=1e-6)

    def test_lomo_clips_the_norm_of_the_whole_gradient(self):
        lomo = start("lomo", {"lr": 1.0, "clip_grad_norm": 0.01})
        before = lomo.weights()
        lomo.step()
        assert (lomo.weights() - before).norm().item() == pytest.approx(0.01, rel=1e-3)
        assert lomo.closures == [1]

    def test_the_learning_rate_of_the_group_counts(self):
        training = start("lomo", {"lr": 0.1})
        training.optimizer.param_groups[0]["lr"] = 0.0
        before = training.weights()
        training.step()
        assert torch.equal(training.weights(), before)

    def test_adalomo_sees_a_kernel_as_a_matrix(self):
        class Step:
            def __init__(self, model, inputs):
                self.model, self.inputs = model, inputs

            def loss(self):
                return (self.model(self.inputs) ** 2).sum()

        torch.manual_seed(0)
        kernel, matrix = nn.Conv2d(3, 4, 2, bias=False), nn.Linear(12, 4, bias=False)
        with torch.no_grad():
            matrix.weight.copy_(kernel.weight.flatten(1))
        image = torch.randn(1, 3, 2, 2)
        for model, inputs in ((kernel, image), (matrix, image.flatten(1))):
            optimizer = build("adalomo", model)
            for _ in range(3):
                optimizer.step(Step(model, inputs))
        assert torch.allclose(kernel.weight.flatten(1), matrix.weight, atol=1e-6)


class TestGroups:
    def test_matrices_are_projected_and_others_are_not(self):
        training = start("galore", {"rank": 3, "update_proj_gap": 5})
        training.step(2)
        state = training.optimizer.state
        projected = [p for p in training.parameters if isinstance(state[p].get("projector"), GaLoreProjector)]
        assert projected == [p for p in training.parameters if p.ndim == 2]
        assert all(min(state[p]["exp_avg"].shape) == 3 for p in projected)

    @pytest.mark.parametrize("name", ["apollo", "fira", "galore"])
    def test_groups_keep_their_own_options(self, name):
        model = Network()
        groups = [
            {"params": list(model.first.parameters()), "lr": 0.5},
            {"params": list(model.norm.parameters()), "weight_decay": 0.0},
        ]
        built = build(name, groups, lr=0.1, weight_decay=0.2).param_groups
        options = [(len(g["params"]), g["lr"], g["weight_decay"], "rank" in g) for g in built]
        assert options == [(1, 0.5, 0.2, True), (1, 0.5, 0.2, False), (2, 0.1, 0.0, False)]

    def test_matrices_have_one_second_moment_for_each_subset(self):
        training = start("adamwsn")
        training.step()
        sizes = {p.ndim: training.optimizer.state[p]["exp_avg_sq"].numel() for p in training.parameters}
        assert sizes[1] == training.model.last.bias.numel() and sizes[2] < training.model.last.weight.numel()

    def test_decay_of_normalisation_layers_follows_the_learning_rate(self):
        training = start("adamc")
        special = [g["params"] for g in training.optimizer.param_groups if g.get("normalized")]
        assert special == [list(training.model.norm.parameters())]

    @pytest.mark.parametrize("name", ["adago", "adamuon", "distributedmuon", "muon", "muonclip", "normuon"])
    def test_all_parameters_of_a_muon_are_orthogonalised(self, name):
        spec = load_member(name)
        assert spec.parameters == "matrices" and spec.flattens_kernels
        kernel = nn.Parameter(torch.randn(4, 3, 2, 2))
        optimizer = build(name, [kernel])
        before = kernel.detach().clone()
        kernel.grad = torch.randn_like(kernel)
        optimizer.step()
        values = torch.linalg.svdvals((kernel - before).detach().flatten(1))
        assert (values.max() / values.min()).item() < 3


class TestFacts:
    def test_ranger21_is_told_the_number_of_steps(self):
        ranger = start("ranger21").optimizer
        assert ranger.start_warm_down + ranger.num_warm_down_iterations == 60

    def test_bsam_is_told_the_number_of_examples(self):
        training = start("bsam")
        training.step(2)
        assert training.optimizer.num_data == 64
        assert training.closures == [2, 2]

    def test_adammini_groups_parameters_by_name(self):
        names = [group["name"] for group in start("adammini").optimizer.param_groups]
        assert names == [name for name, _ in Network().named_parameters()]


class TestScionLight:
    def test_is_the_same_as_with_gradients_that_are_never_cleared(self):
        weights = [nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)) for _ in range(2)]
        ours, theirs = build("scionlight", [weights[0]]), pytorch_optimizer.SCIONLight([weights[1]])
        for step in range(4):
            gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
            weights[0].grad = gradient.clone()
            ours.step()
            weights[0].grad = None
            weights[1].grad = gradient if step == 0 else weights[1].grad + gradient
            theirs.step()
            assert torch.equal(*weights)


class TestLoraRite:
    def test_trains_pairs_of_factors(self):
        training = start("lorarite", {"lr": 0.01}, Factors)
        losses = training.step(30)
        assert losses[-1] < losses[0]

    def test_is_resumed_exactly(self):
        whole, resumed = (start("lorarite", {"lr": 0.01}, Factors) for _ in range(2))
        whole.step(3)
        checkpoint, losses = whole.checkpoint(), whole.step(4)
        resumed.resume(checkpoint)
        assert resumed.step(4) == losses

    @pytest.mark.parametrize("network", [Network, build_shapes])
    def test_refuses_parameters_that_are_not_factors(self, network):
        with pytest.raises(Unsupported, match="LoRA-RITE needs pairs of low-rank factors"):
            start("lorarite", network=network)

    def test_refuses_factors_of_different_ranks(self):
        with pytest.raises(Unsupported, match=r"\(4, 8\) and \(6, 5\) have different ranks"):
            build("lorarite", [nn.Parameter(torch.ones(4, 8)), nn.Parameter(torch.ones(6, 5))])


class TestDemo:
    def test_sees_a_kernel_as_a_matrix(self):
        torch.manual_seed(0)
        kernel = nn.Parameter(torch.randn(4, 3, 2, 2))
        matrix = nn.Parameter(kernel.detach().flatten(1).clone())
        optimizers = [build("demo", [p], lr=0.1) for p in (kernel, matrix)]
        for step in range(3):
            gradient = torch.randn(4, 12, generator=torch.Generator().manual_seed(step))
            stepped = [
                flat_gradient_step(optimizer, p, gradient.reshape(p.shape))
                for optimizer, p in zip(optimizers, (kernel, matrix), strict=True)
            ]
            assert torch.equal(*stepped)


class TestSettings:
    def test_dtype_is_given_by_its_name(self):
        training = start("adafactor", {"momentum_dtype": "float32"})
        training.step()
        moments = [state["exp_avg"] for state in training.optimizer.state.values()]
        assert {moment.dtype for moment in moments} == {torch.float32}
        with pytest.raises(ValueError, match="momentum_dtype = 'float31' is not a dtype of torch"):
            start("adafactor", {"momentum_dtype": "float31"})

    def test_magma_passes_settings_to_adamw(self):
        groups = start("magma", {"lr": 0.3, "weight_decay": 0.1}).optimizer.param_groups
        assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.3, 0.1)]

    @pytest.mark.parametrize(
        ("name", "setting"),
        [
            (name, key)
            for name, entry in ENTRIES.items()
            for key, value in entry.extras.items()
            if value is False
        ],
    )
    def test_options_outside_of_signatures_have_an_effect(self, name, setting):
        options = {setting: True} | ({"adanorm_r": 0.1} if setting == "adanorm" else {})
        plain, changed = start(name, {"lr": 0.01}), start(name, {"lr": 0.01, **options})
        for training in (plain, changed):
            training.step(
                40 if name == "lion" else 12
            )  # whose signs hardly depend on the length of gradients
        assert not torch.equal(plain.weights(), changed.weights())


# What each optimizer does once in a period: the object and the name of a function that it then calls.
PERIODIC = {
    "alice": ({"update_interval": 50}, pytorch_optimizer.Alice, "switch"),
    "apollo": ({"rank": 3, "update_proj_gap": 50}, GaLoreProjector, "update_ortho_matrix"),
    "conda": ({"update_proj_gap": 50}, GaLoreProjector, "update_ortho_matrix"),
    "dash": ({"precondition_frequency": 50}, pytorch_optimizer.DASH, "compute_inverse_root"),
    "fira": ({"rank": 3, "update_proj_gap": 50}, GaLoreProjector, "update_ortho_matrix"),
    "galore": ({"rank": 3, "update_proj_gap": 50}, GaLoreProjector, "update_ortho_matrix"),
    "scalableshampoo": ({"preconditioning_compute_steps": 50}, PreConditioner, "compute_pre_conditioners"),
    "shampoo": ({"preconditioning_compute_steps": 50}, shampoo, "compute_power_svd"),
    "soap": ({"precondition_frequency": 50}, pytorch_optimizer.SOAP, "get_orthogonal_matrix_qr"),
    "spam": ({"update_proj_gap": 50}, pytorch_optimizer.SPAM, "update_masks"),
    "splus": ({"inverse_steps": 50}, torch.linalg, "eigh"),
}


class TestFillState:
    def test_every_optimizer_with_a_period_is_tried(self):
        fill_period = (jump_to_period, jump_to_resampling)
        fills = {name: entry.fields.get("fill_state") for name, entry in ENTRIES.items()}
        assert sorted(PERIODIC) == [
            name for name, fill in fills.items() if getattr(fill, "func", fill) in fill_period
        ]

    @pytest.mark.parametrize("name", PERIODIC)
    def test_the_next_step_does_the_periodic_work(self, name, monkeypatch):
        settings, place, function = PERIODIC[name]
        calls, original = [], getattr(place, function)

        def watch(*args, **kwargs):
            calls.append(1)
            return original(*args, **kwargs)

        training = start(name, settings)
        training.fill_state()
        monkeypatch.setattr(place, function, watch)
        counts = []
        for _ in range(3):
            calls.clear()
            training.step()
            counts.append(len(calls))
        assert counts[0] > 0 and counts[1:] == [0, 0]

    @pytest.mark.parametrize("period", [1, 2, 3])
    def test_short_periods_are_met_too(self, period, monkeypatch):
        calls, original = [], shampoo.compute_power_svd
        training = start("shampoo", {"preconditioning_compute_steps": period})
        training.fill_state()
        monkeypatch.setattr(shampoo, "compute_power_svd", lambda *args: calls.append(1) or original(*args))
        training.step()
        assert calls

    def test_a_period_before_dash_starts_to_precondition_is_not_met(self, monkeypatch):
        training = start("dash", {"precondition_frequency": 4, "start_preconditioning_step": 9})
        training.fill_state()
        training.step()
        assert training.optimizer.param_groups[0]["step"] == 12

    def test_swats_has_the_state_of_both_phases(self):
        training = start("swats", {"ams_bound": True})
        training.fill_state()
        keys = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
        assert all(keys <= state.keys() for state in training.optimizer.state.values())
        filled = training.count_vectors()
        training.step(2)
        assert training.optimizer.param_groups[0]["phase"] == "sgd"
        assert training.count_vectors() == filled == training.declared_vectors() == 4

    def test_swats_takes_no_more_than_declared_after_its_own_switch(self):
        training = start("swats")
        training.step(2)
        training.optimizer.param_groups[0]["phase"] = "sgd"  # as it does when its estimate settles
        training.step(2)
        assert training.count_vectors() == training.declared_vectors() == 3

    def test_the_queue_of_adashift_is_full(self):
        training = start("adashift", {"keep_num": 4})
        training.fill_state()
        assert {len(state["grad_queue"]) for state in training.optimizer.state.values()} == {4}
