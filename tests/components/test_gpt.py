"""Tests of the small GPT: causal, initialised as GPT-2 is, and trained by any optimizer."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from xbench.components.facts import Facts, Output, TensorFacts
from xbench.components.gpt import build_gpt
from xbench.components.next_token import next_token_task
from xbench.errors import XbenchError

VOCABULARY, CONTEXT = 16, 12


TOKENS = Output("tokens", VOCABULARY)


def make_facts(shape=(CONTEXT,), dtype="int64", output: Output | None = TOKENS) -> Facts:
    row = TensorFacts(shape, dtype)
    return Facts((row, row), output, rows=100)


def make_model(**settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_gpt(make_facts(), **{"width": 32, "depth": 2, "heads": 4} | settings)


def make_batch(rows: int = 8):
    """Return rows in which a token repeats with a period of three, which takes context to predict."""
    places = torch.arange(CONTEXT + 1)
    tokens = torch.stack([(row * 5 + places % 3 * (row + 1)) % VOCABULARY for row in range(rows)])
    return tokens[:, :-1], tokens[:, 1:]


def test_context_and_vocabulary_are_those_of_the_data():
    model = make_model()
    assert model(make_batch()[0]).shape == (8, CONTEXT, VOCABULARY)
    assert model(make_batch()[0][:, :5]).shape == (8, 5, VOCABULARY)
    assert model.positions.weight.shape == (CONTEXT, 32)


def test_context_may_be_longer_than_the_rows_that_describe_the_data():
    """Rows that are padded batch by batch differ in length."""
    model = make_model(context=CONTEXT + 3)
    assert model(torch.zeros(2, CONTEXT + 3, dtype=torch.int64)).shape == (2, CONTEXT + 3, VOCABULARY)
    with pytest.raises(ValueError, match=f"the context of {CONTEXT + 3}: set context = {CONTEXT + 4}"):
        model(torch.zeros(2, CONTEXT + 4, dtype=torch.int64))
    with pytest.raises(XbenchError, match=f"context = 5 is less than the {CONTEXT} tokens of a row"):
        make_model(context=5)


def test_logits_depend_on_all_earlier_tokens_and_on_no_later_one():
    model = make_model().double()
    tokens = make_batch()[0][1:2]
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % VOCABULARY
    differs = (model(tokens) != model(changed)).any(2)[0].tolist()
    assert differs == [False] * 4 + [True] * (CONTEXT - 4)


def test_rows_do_not_depend_on_each_other():
    model = make_model().double()
    tokens, _ = make_batch()
    torch.testing.assert_close(model(tokens)[3:5], model(tokens[3:5]), rtol=1e-10, atol=1e-12)


def test_initial_loss_is_that_of_uniform_predictions():
    task, batch = next_token_task(VOCABULARY), make_batch()
    loss = task.loss_of(make_model()(batch[0]), batch).sum() / task.weight(batch).sum()
    assert loss.item() == pytest.approx(math.log(VOCABULARY), rel=0.02)


def test_weights_are_drawn_as_in_gpt_2():
    model = make_model(width=128, depth=8)
    residual = 0.02 / math.sqrt(2 * 8)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (1.0 if "norm.weight" in name else 0.0)).all(), name
            continue
        expected = residual if name.endswith(("project.weight", "contract.weight")) else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.1), name


def optimizers(model):
    hidden = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
    yield "sgd", torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 60
    yield "adafactor", torch.optim.Adafactor(model.parameters(), lr=0.05), 60
    yield "lbfgs", torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe"), 8
    yield "muon", torch.optim.Muon(hidden, lr=0.02), 60  # of hidden matrices alone


@pytest.mark.parametrize("name", ["sgd", "adafactor", "lbfgs", "muon"])
def test_optimizers_lower_the_loss(name):
    model, task, batch = make_model(), next_token_task(VOCABULARY), make_batch()
    optimizer, steps = next((made, steps) for kind, made, steps in optimizers(model) if kind == name)

    def closure():
        optimizer.zero_grad()
        loss = task.loss_of(model(batch[0]), batch).sum() / task.weight(batch).sum()
        loss.backward()
        return loss

    before = closure().item()
    for _ in range(steps):
        optimizer.step(closure)
    assert closure().item() < 0.8 * before


def test_gradients_in_double_precision_add_up_over_parts_of_a_batch():
    model, task, batch = make_model().double(), next_token_task(VOCABULARY), make_batch()

    def gradients(parts):
        model.zero_grad()
        for part in parts:
            rows = tuple(tensor[part] for tensor in batch)
            (task.loss_of(model(rows[0]), rows).sum() / task.weight(batch).sum()).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole, split = gradients([slice(None)]), gradients([slice(0, 3), slice(3, 8)])
    torch.testing.assert_close(split, whole, rtol=1e-9, atol=1e-12)


def test_every_parameter_is_trained_and_none_is_shared():
    model, batch = make_model(), make_batch()
    model(batch[0]).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert len({parameter.data_ptr() for parameter in model.parameters()}) == len(model.state_dict())


@pytest.mark.parametrize(
    "settings",
    [{"width": 0}, {"depth": -1}, {"heads": 1.0}, {"depth": True}],
    ids=lambda given: next(iter(given)),
)
def test_invalid_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(XbenchError, match=f"{name} = "):
        make_model(**settings)


def test_width_must_be_divisible_by_heads():
    with pytest.raises(XbenchError, match="width = 30 is not divisible by heads = 4") as caught:
        make_model(width=30)
    assert "32" in caught.value.hint
    make_model(width=32)


def test_a_task_that_does_not_say_its_output_is_told_how():
    with pytest.raises(XbenchError) as caught:
        build_gpt(make_facts(output=None))
    assert 'output=Output("tokens", SIZE_OF_VOCABULARY)' in caught.value.hint


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (make_facts(output=Output("classes", 10)), "'tokens', and .* 'classes'"),
        (make_facts(output=None), "does not say"),
        (make_facts(shape=(3, 8, 8), dtype="float32"), r"float32 of shape \(3, 8, 8\)"),
        (make_facts(dtype="float32"), "float32"),
    ],
)
def test_other_data_is_refused(facts, message):
    with pytest.raises(XbenchError, match=message):
        build_gpt(facts)


def test_spec_and_checks_import_no_torch():
    code = (
        "import sys\n"
        "from xbench.components.gpt import GPT_MINI, build_gpt\n"
        "from xbench.components.facts import Facts, TensorFacts\n"
        "try: build_gpt(Facts(TensorFacts((3,), 'int64'), None, 1))\n"
        "except Exception as error: assert 'tokens' in str(error), error\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sequences_longer_than_the_context_are_refused():
    tokens = torch.zeros(2, CONTEXT + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"sequences of {CONTEXT + 1} tokens are longer than the context of"):
        make_model()(tokens)
    assert make_model()(tokens[:, :3]).shape == (2, 3, VOCABULARY)
