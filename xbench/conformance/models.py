"""Checks of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xbench.components.image_dataset import Dataset
from xbench.components.model_factory import (
    advise_class_count,
    build_network,
    find_class_count_parameter,
    takes_facts,
)
from xbench.components.registry import find
from xbench.components.roles import count_by_role
from xbench.components.settings import settings_of
from xbench.components.specs import ModelSpec, Scale
from xbench.components.tracebacks import describe_error
from xbench.conformance.bench import Data, make_model, open_rows, open_unregistered, start_trainer
from xbench.conformance.checks import Inapplicable, Verdict, fact, failed, not_applicable, passed
from xbench.conformance.common import Subject, double
from xbench.errors import DependentExamples, XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.planning.describe import ModelFacts, describe_models
from xbench.training.checkpoint import Checkpoints
from xbench.training.footprint import model_bytes, storage_bytes
from xbench.training.global_state import load_component
from xbench.training.logits import check_logits, random_images
from xbench.training.loop import Trainer
from xbench.training.micro_batches import check_examples_are_independent
from xbench.training.open_data import open_row_set, run_on_first_row
from xbench.training.recorder import Diverged
from xbench.training.row_set import make_dataset
from xbench.training.settings import Choice
from xbench.training.state_dicts import StateCheck, hash_tensors
from xbench.training.task_checks import check_task
from xbench.units import format_bytes

# Shapes of images that a classifier is tried on, unless its spec says which it takes.
_SHAPES = ((3, 32, 32), (1, 28, 28), (3, 64, 64), (3, 224, 224))
_ROWS = ("numbers", "tokens", "pairs", "start")
_BATCH = 4


@dataclass
class CheckedModel:
    """A model that is being checked.

    Attributes:
        folder: folder for weights, which must exist and be empty.
    """

    spec: ModelSpec
    subject: Subject
    folder: Path

    @property
    def name(self) -> str:
        return self.subject.name

    @cached_property
    def facts(self) -> ModelFacts:
        """The facts about the model with its settings; nothing is downloaded."""
        return self.describe(self.subject.params)

    def describe(self, params: Mapping[str, Any]) -> ModelFacts:
        answers: list[Any] = []
        describe_models(answers.append, [Choice(self.name, dict(params))], self.subject.dirs)
        if isinstance(answers[0], XbenchError):
            raise answers[0]
        return answers[0]

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """Settings with which the model can be built on this machine without a download."""
        if not self.facts.missing:
            return self.subject.params
        if self.facts.untrained is None:
            raise Inapplicable(f"its files are not on this machine: {self.facts.missing}")
        return self.facts.untrained

    @cached_property
    def found(self) -> Data | str:
        """The first data that the model can be trained on, or why there is none."""
        failures = []
        self.params  # noqa: B018 -- says whether it can be built at all
        for kind, data in self._list_data():
            try:
                self._try(data)
                return data
            except Exception as error:  # a plugin may raise anything
                raise_if_exhausted(error)
                failures.append(
                    f"{kind}: {error.message if isinstance(error, XbenchError) else describe_error(error)}"
                )
        return "; ".join(failures)

    @property
    def data(self) -> Data:
        if isinstance(self.found, str):
            raise Inapplicable("it cannot be trained on any data that it was tried on: see `outputs`")
        return self.found

    def build(self, params: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
        return make_model(self.data, self.spec, self.params if params is None else params, seed)

    def start(self, params: Mapping[str, Any] | None = None) -> Trainer:
        """Build a trainer of the model with plain gradient descent.

        Args:
            params: replace the settings of the model.
        """
        return start_trainer(
            self.data,
            self.spec,
            load_component("optimizer", "sgd"),
            {"lr": 1e-4},
            Checkpoints(self.folder),
            model_params=self.params if params is None else params,
            batch_size=_BATCH,
        )

    def _list_data(self) -> Iterator[tuple[str, Data]]:
        """Yield what it may be trained on: its own dataset, or else images and rows of several kinds."""
        partner, dirs = self.subject.partner, self.subject.dirs
        if partner or find("dataset", self.name) or dirs.find_packed("dataset", self.name):
            name = partner or self.name
            made = make_dataset(name, {}, dirs)
            if isinstance(made, Dataset):
                params = {"shape": made.shape, "classes": len(made.classes)}
                yield f"images as those of '{name}'", self._open("images", params)
            else:
                yield f"dataset '{name}'", open_rows(name, {}, dirs)
            return
        factory = self.spec.load_factory()
        if self.spec.input_shape or not takes_facts(factory):
            for shape in [self.spec.input_shape] if self.spec.input_shape else _SHAPES:
                yield f"images of {shape}", self._open("images", {"shape": shape})
        if self.spec.input_shape:
            return
        if takes_facts(factory) or find_class_count_parameter(factory) is None:
            for kind in _ROWS:
                yield f"rows of {kind}", self._open(kind, {})
        if takes_facts(factory):
            yield f"images of {_SHAPES[0]}", self._open("images", {"shape": _SHAPES[0]})

    def _open(self, kind: str, params: Mapping[str, Any]) -> Data:
        return open_unregistered(kind, params, self.subject.dirs, self.folder)

    def _try(self, data: Data) -> None:
        """Run the model on a few rows, as a suite does before a run."""
        advice = advise_class_count(self.spec.load_factory())
        facts = data.rows.facts
        if len(facts.input_shape) == 3 and facts.output is not None:
            channels, height, width = facts.input_shape
            images = random_images(self.spec, 3, (channels, height, width), torch.float32, "contiguous")
            network = build_network(self.spec, facts, self.params)
            check_logits(network, self.name, images, facts.output.size, advice)
        network = build_network(
            self.spec, facts, self.params, lambda model: run_on_first_row(model, data.rows, data.dirs)
        )
        check_task(network, self.name, open_row_set(data.rows, data.dirs), data.rows, torch.float32, advice)


def open_model(spec: ModelSpec, subject: Subject, folder: Path) -> CheckedModel:
    return CheckedModel(spec, subject, folder)


def check_weights(tried: CheckedModel) -> Verdict:
    """Check that `obtain` and `untrained` agree, without a download."""
    if tried.spec.obtain is None:
        return not_applicable("reads no files")
    facts = tried.facts
    if facts.untrained is None:
        what = f"files are missing: {facts.missing}" if facts.missing else f"reads files ({facts.weights})"
        return fact(f"{what}; untrained says that it cannot be built without files")
    untrained = tried.describe(facts.untrained)
    if untrained.missing or untrained.weights:
        return failed(f"untrained returns settings that need files: {untrained.missing or untrained.weights}")
    if facts.missing:
        return passed("obtain reports missing files, and untrained builds the network without them")
    return passed("reads files, or none with the settings of untrained")


def check_outputs(tried: CheckedModel) -> Verdict:
    """Find data that it takes, and run it on a few rows."""
    found = tried.found
    if isinstance(found, str):
        hint = "" if tried.subject.partner else "; name a dataset that suits it with --with"
        return failed(f"cannot be trained on {found}{hint}")
    facts, network = found.rows.facts, tried.build()
    output = f"{facts.output.size} {facts.output.kind}" if facts.output else "what the task takes"
    size = format_bytes(model_bytes(network))
    untrained = "; checked untrained, as its files are not on this machine" if tried.facts.missing else ""
    return passed(
        f"maps rows of {facts.input_shape} to {output}; {size}{untrained}",
        input_shape=list(facts.input_shape),
        model_bytes=model_bytes(network),
    )


def check_repeats(tried: CheckedModel) -> Verdict:
    """Build it twice with one seed, and with another one."""
    one, other = hash_tensors(tried.build(seed=1)), hash_tensors(tried.build(seed=1))
    if one != other:
        return failed("two models with the same seed differ: it draws from a generator that is not seeded")
    if one == hash_tensors(tried.build(seed=2)):
        return fact("the seed does not matter to the initial weights")
    return passed("initial weights follow from the seed")


def check_roles(tried: CheckedModel) -> Verdict:
    """Count the parameters of each role; declared patterns must match, or the model cannot be built."""
    trainer = tried.start()
    counts = count_by_role(trainer.model, trainer.roles)
    text = ", ".join(f"{count:,} {role}" for role, count in counts.items()) or "no trained parameters"
    declared = f"; all {len(tried.spec.roles)} declared patterns match" if tried.spec.roles else ""
    return (passed if declared else fact)(f"parameters by role: {text}{declared}", **counts)


def check_state_dict(tried: CheckedModel) -> Verdict:
    """Train, and compare the outputs with those of a new model that loads the state dict."""
    trainer = tried.start()
    try:
        trainer.run()
    except Diverged as error:
        return not_applicable(f"a few steps of SGD diverge: {error}")
    check = StateCheck(trainer)
    del trainer
    failure = check.find_failure(tried.build)
    if tried.spec.resumable:
        return failed(failure) if failure else passed("its state dict holds all of its state")
    if failure:
        return fact(f"resumable=False is correct: {failure}")
    return fact("resumable=False, but its state dict holds all of its state: it could be True")


def check_micro_batches(tried: CheckedModel) -> Verdict:
    """Check whether the rows of a batch are independent, so that micro-batches are exact."""
    trainer = tried.start()
    rows = trainer.split.train[:_BATCH]
    if len(rows) < 2:
        return not_applicable("its data has a single row")
    try:
        check_examples_are_independent(trainer.model, trainer.loader, trainer.objective, rows)
    except DependentExamples as error:
        return fact(f"micro-batches are not exact: {error.message}", exact=False)
    return fact("micro-batches are exact: rows do not affect each other", exact=True)


def check_scales(tried: CheckedModel) -> Verdict:
    """Build it with larger values of the settings that a probe may vary."""
    if not tried.spec.scalable:
        return not_applicable("declares no scalable settings")
    defaults = {**settings_of(tried.spec).defaults, **tried.params}
    said, at_end = [], []
    for name, scale in tried.spec.scalable.items():
        if name not in defaults:
            return failed(f"scalable names '{name}', which is not a setting with a default")
        present, value = double(name, scale, defaults)
        if value == present:
            at_end.append(f"{name} = {value} is its highest value")
            continue
        smaller, larger = (_scale(tried.params, name, scale, size) for size in (present, value))
        before, after = (model_bytes(tried.build(params)) for params in (smaller, larger))
        if after > before:
            said.append(f"{name} = {value}: {format_bytes(before)} -> {format_bytes(after)}")
            continue
        before, after = (_measure_activations(tried, params) for params in (smaller, larger))
        if after <= before:
            return failed(
                f"with {name} = {value} rather than {present}, neither the model nor its activations grow"
            )
        said.append(
            f"{name} = {value}: {format_bytes(before)} -> {format_bytes(after)} of activations in a batch"
        )
    return passed("; ".join([*said, *at_end])) if said else not_applicable("; ".join(at_end))


def _measure_activations(tried: CheckedModel, params: Mapping[str, Any]) -> int:
    """Measure what the forward pass of a batch keeps for the backward pass, without the model itself."""
    trainer, saved = tried.start(params), list[torch.Tensor]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    rows, objective = trainer.split.train[:_BATCH], trainer.objective
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective.part_loss(trainer.model, trainer.loader.load(rows), objective.divisor(rows))
    owned = [*trainer.model.parameters(), *trainer.model.buffers()]
    return storage_bytes([*owned, *saved]) - storage_bytes(owned)


def _scale(params: Mapping[str, Any], name: str, scale: Scale, value: int) -> dict[str, Any]:
    return {**params, name: value, **scale.needs(value)}
