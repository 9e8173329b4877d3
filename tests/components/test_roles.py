"""Roles of parameters: derived from modules and a forward pass, or declared."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from xbench.components.facts import Facts, Output, TensorFacts
from xbench.components.gpt import build_gpt
from xbench.components.matrix_factorisation import build_matrix_factorisation
from xbench.components.model_factory import build_network
from xbench.components.models import build_report_cnn
from xbench.components.registry import load
from xbench.components.roles import (
    check_patterns,
    count_by_role,
    find_roles,
    hidden_matrices,
    watch_last_layer,
)
from xbench.components.row_models import build_factorisation, build_linear, build_mlp, build_point
from xbench.components.specs import ModelSpec
from xbench.components.tasks import Task
from xbench.errors import XbenchError


def roles_after(model: nn.Module, inputs: torch.Tensor, *declared, **options):
    """Roles of a model that is run on these inputs."""
    with watch_last_layer(model) as last:
        model.eval()(inputs)
    return find_roles(model, *declared, last=last, **options)


def names_of(roles, role):
    return [name for name, found in roles.items() if found == role]


def facts(shape=(4,), dtype="float32", output=Output("values", 3)):  # noqa: B008
    return Facts(row=(TensorFacts(shape, dtype), TensorFacts((), "int64")), output=output, rows=10)


class Text(nn.Module):
    """A language model whose output is a matrix of its own, or the embedding's under another name."""

    def __init__(self, tied: bool):
        super().__init__()
        self.output = nn.Linear(4, 7, bias=False)  # registered first, and called last
        self.tokens = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        if tied:
            self.output.weight = self.tokens.weight

    def forward(self, tokens):
        return self.output(self.norm(self.hidden(self.tokens(tokens))))


class UsesEmbedding(Text):
    """A language model that multiplies by its embedding in place of an output layer."""

    def __init__(self):
        super().__init__(tied=False)
        del self.output

    def forward(self, tokens):
        return self.norm(self.hidden(self.tokens(tokens))) @ self.tokens.weight.T


class Bare(nn.Module):
    """A network without layers as modules."""

    def __init__(self):
        super().__init__()
        self.last = nn.Parameter(torch.ones(2, 4))
        self.first = nn.Parameter(torch.ones(4, 3))
        self.offset = nn.Parameter(torch.ones(2))

    def forward(self, x):
        out = functional.linear((x @ self.first.T).relu(), self.last, self.offset)
        return out.to(self.first.dtype)


TOKENS = torch.tensor([[1, 2, 3]])


class TestBuiltIn:
    def test_gpt_mini(self):
        model = build_gpt(facts((5,), "int64", Output("tokens", 7)), width=8, depth=1, heads=2)
        roles = roles_after(model, TOKENS)
        assert names_of(roles, "embedding") == ["tokens.weight", "positions.weight"]
        assert names_of(roles, "output") == ["output.weight"]
        layers = ("attention.query_key_value", "attention.project", "expand", "contract")
        assert list(hidden_matrices(model, roles)) == [f"blocks.0.{layer}.weight" for layer in layers]
        assert len(roles) == len(list(model.parameters()))

    def test_mlp(self):
        model = build_mlp(facts(), hidden=(8, 6))
        roles = roles_after(model, torch.ones(1, 4))
        assert names_of(roles, "output") == ["5.weight", "5.bias"]
        assert list(hidden_matrices(model, roles)) == ["1.weight", "3.weight"]
        assert count_by_role(model, roles) == {"hidden": 4 * 8 + 8 + 8 * 6 + 6, "output": 6 * 3 + 3}

    def test_physics_network(self):
        """The loss differentiates the model twice."""
        from xbench.components.poisson import build_poisson_1d

        rows = build_poisson_1d(points=4)
        batch = tuple(tensor.float() for tensor in rows.train["interior"])
        model = build_mlp(facts((1,), output=rows.task.output), hidden=(8, 8), activation="tanh")
        with watch_last_layer(model) as last:
            rows.task.terms["interior"].loss(model, batch)
        assert names_of(find_roles(model, last=last), "output") == ["5.weight", "5.bias"]

    def test_report_cnn(self):
        model = build_report_cnn(2)
        roles = roles_after(model, torch.zeros(1, 3, 224, 224))
        assert names_of(roles, "output") == ["14.weight", "14.bias"]
        assert list(hidden_matrices(model, roles)) == ["10.weight", "12.weight"]
        kernels = ["0.weight", "3.weight", "6.weight"]
        assert list(hidden_matrices(model, roles, with_kernels=True)) == [*kernels, "10.weight", "12.weight"]

    def test_linear_model_has_nothing_hidden(self):
        model = build_linear(facts(), bias=True)
        assert set(roles_after(model, torch.ones(1, 4)).values()) == {"output"}

    def test_factors_are_embeddings(self):
        rows = build_matrix_factorisation(shape=(3, 2), rank=1)
        model = build_factorisation(facts((2,), "int64"), shape=(3, 2), rank=1)
        assert set(roles_after(model, rows.train[0][:1]).values()) == {"embedding"}

    def test_point_has_no_output_layer(self):
        assert roles_after(build_point(facts()), torch.ones(1, 4)) == {"displacement": "hidden"}


class TestTorchvision:
    @pytest.mark.parametrize(
        ("name", "output"),
        [
            ("squeezenet1_1", "classifier.1"),  # a convolution
            ("resnet18", "fc"),
            ("googlenet", "fc"),
            ("mobilenet_v3_small", "classifier.3"),
            ("densenet121", "classifier"),
        ],
    )
    def test_output_layer(self, name, output):
        model = load("model", f"torchvision/{name}").load_factory()(3, pretrained=False, train="all")
        roles = roles_after(model, torch.zeros(1, 3, 64, 64))
        assert names_of(roles, "output") == [f"{output}.weight", f"{output}.bias"]
        assert set(roles.values()) == {"hidden", "output"}

    @pytest.mark.parametrize(
        ("name", "tables"),
        [
            ("vit_b_32", r"class_token|encoder\.pos_embedding"),
            ("swin_t", r".*\.relative_position_bias_table"),
            ("swin_v2_t", "none"),
            ("maxvit_t", r".*\.relative_position_bias_table"),
        ],
    )
    @pytest.mark.slow
    def test_tables_of_positions_are_embeddings(self, name, tables):
        import re

        spec = load("model", f"torchvision/{name}")
        model = build_network(spec, facts((3, 224, 224)), {"pretrained": False, "train": "all"})
        roles = roles_after(model, torch.zeros(1, 3, 224, 224), spec.roles)
        expected = [key for key, _ in model.named_parameters() if re.fullmatch(tables, key)]
        assert names_of(roles, "embedding") == expected
        assert names_of(roles, "output")[0].startswith(("head", "classifier"))
        assert all(p.ndim == 2 for p in hidden_matrices(model, roles).values())


class TestDerived:
    def test_order_of_calls_decides_and_not_that_of_registration(self):
        roles = roles_after(Text(tied=False), TOKENS)
        assert names_of(roles, "output") == ["output.weight"]
        assert names_of(roles, "embedding") == ["tokens.weight"]

    def test_tied_weights_are_an_embedding_once(self):
        model = Text(tied=True)
        roles = roles_after(model, TOKENS)
        assert names_of(roles, "embedding") == ["output.weight"]  # the first name of the tensor
        assert names_of(roles, "output") == []
        assert list(hidden_matrices(model, roles)) == ["hidden.weight"]
        assert count_by_role(model, roles) == {"embedding": 28, "hidden": 4 * 4 + 4 + 8}

    def test_an_embedding_that_is_multiplied_by_stays_one(self):
        roles = roles_after(UsesEmbedding(), TOKENS)
        assert names_of(roles, "embedding") == ["tokens.weight"]
        assert names_of(roles, "output") == []

    def test_bags_are_embeddings(self):
        model = nn.Sequential(nn.EmbeddingBag(5, 4), nn.Linear(4, 2))
        assert names_of(roles_after(model, torch.tensor([[1, 2]])), "embedding") == ["0.weight"]

    def test_normalisation_after_the_output_layer_is_not_the_output(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2))
        assert names_of(roles_after(model, torch.ones(1, 4)), "output") == ["2.weight", "2.bias"]

    def test_parameters_without_modules(self):
        assert roles_after(Bare(), torch.ones(1, 3)) == {
            "last": "output",
            "first": "hidden",
            "offset": "output",
        }

    def test_parametrised_layer(self):
        model = nn.Sequential(nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 2)))
        roles = roles_after(model, torch.ones(1, 4))
        assert names_of(roles, "hidden") == ["0.weight", "0.bias"]
        assert len(names_of(roles, "output")) == 3

    @pytest.mark.parametrize("layer", [nn.LSTM(4, 3), nn.GRU(4, 3)])
    def test_recurrent_output_layer(self, layer):
        model = nn.Sequential(nn.Linear(4, 4), layer)
        roles = roles_after(model, torch.ones(2, 4))
        assert names_of(roles, "output") == [f"1.{name}" for name, _ in layer.named_parameters()]

    def test_bias_that_is_added_by_itself(self):
        class Adds(nn.Linear):
            def forward(self, x):
                return x @ self.weight.T + self.bias

        roles = roles_after(nn.Sequential(nn.Linear(3, 3), Adds(3, 2)), torch.ones(1, 3))
        assert names_of(roles, "output") == ["1.weight", "1.bias"]

    def test_projection_of_attention(self):
        class Attends(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 2)

            def forward(self, x):
                return self.attention(x, x, x)[0]

        roles = roles_after(Attends(), torch.ones(3, 4))
        assert names_of(roles, "output") == ["attention.out_proj.weight", "attention.out_proj.bias"]

    def test_frozen_parameters_have_no_role(self):
        model = build_mlp(facts(), hidden=(8, 6))
        model[1].requires_grad_(False)
        assert list(roles_after(model, torch.ones(1, 4))) == ["3.weight", "3.bias", "5.weight", "5.bias"]

    def test_a_frozen_output_layer_does_not_make_another_one(self):
        model = build_mlp(facts(), hidden=(8, 6))
        model[5].requires_grad_(False)
        assert set(roles_after(model, torch.ones(1, 4)).values()) == {"hidden"}

    def test_lazily_built_model(self):
        def build():
            return nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3))

        model = build_network(ModelSpec(factory=build, roles={"0.*": "embedding"}), facts(), {})
        roles = roles_after(model, torch.ones(1, 4), {"0.*": "embedding"})
        assert names_of(roles, "embedding") == ["0.weight", "0.bias"]
        assert names_of(roles, "output") == ["2.weight", "2.bias"]
        assert count_by_role(model, roles) == {"embedding": 4 * 5 + 5, "output": 5 * 3 + 3}

    def test_watching_changes_nothing(self):
        model = build_mlp(facts())
        inputs = torch.rand(5, 4)
        with watch_last_layer(model):
            watched = model(inputs)
        watched.sum().backward()
        assert torch.equal(watched, model(inputs))
        assert all(p.grad is not None for p in model.parameters())


class TestDeclared:
    def test_patterns_come_before_what_is_derived(self):
        roles = roles_after(Bare(), torch.ones(1, 3), {"of*": "output", "first": "embedding"})
        assert roles == {"last": "output", "first": "embedding", "offset": "output"}

    def test_first_match_counts(self):
        task, spec = {"first": "output"}, {"last": "hidden", "*": "embedding"}
        roles = roles_after(Bare(), torch.ones(1, 3), task, spec)
        assert roles == {"last": "hidden", "first": "output", "offset": "embedding"}

    def test_any_name_of_tied_weights_may_be_declared(self):
        roles = roles_after(Text(tied=True), TOKENS, {"tokens.*": "output"})
        assert roles["output.weight"] == "output"
        roles = roles_after(Text(tied=True), TOKENS, {"output.*": "output", "tokens.*": "embedding"})
        assert roles["output.weight"] == "embedding"

    def test_patterns_are_for_names_in_the_whole_model(self):
        head = build_mlp(facts(), hidden=(8,))
        roles = roles_after(head, torch.ones(1, 4), {"head.1.*": "embedding"}, prefix="head.")
        assert names_of(roles, "embedding") == ["1.weight", "1.bias"]

    def test_pattern_without_a_match_names_similar_ones(self):
        with pytest.raises(XbenchError, match=r"'token\.\*' does not match any parameter") as caught:
            check_patterns(Text(tied=False), {"output.*": "output", "token.*": "embedding"})
        assert "'tokens.weight'" in caught.value.hint

    @pytest.mark.parametrize("pattern", ["tokens.weight", "output.weight"])
    def test_pattern_may_match_any_name_of_tied_or_frozen_weights(self, pattern):
        check_patterns(Text(tied=True).requires_grad_(False), {pattern: "embedding"})

    def test_pattern_without_a_match_is_found_when_the_model_is_built(self):
        spec = ModelSpec(factory=build_mlp, roles={"encoder.*": "embedding"})
        with pytest.raises(XbenchError, match="'encoder"):
            build_network(spec, facts(), {})

    @pytest.mark.parametrize(
        "declare",
        [
            lambda roles: ModelSpec(factory=build_mlp, roles=roles),
            lambda roles: Task(loss=lambda model, batch: batch, roles=roles),
        ],
    )
    def test_role_that_does_not_exist(self, declare):
        declare({"a": "hidden", "b": "output", "c": "embedding"})
        told = r"'b\.\*' has the role 'embeding', which is not one of 'embedding', 'hidden', 'output'"
        with pytest.raises(XbenchError, match=told):
            declare({"a": "hidden", "b.*": "embeding"})
