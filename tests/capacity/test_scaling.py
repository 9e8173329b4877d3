"""Jobs with another value of a dataset's or model's setting, and trials that run them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.capacity import scaled_components
from tests.capacity.capacity_settings import settings_of
from xbench.capacity.axis import ScaledSetting
from xbench.capacity.scaling import refusing, scale_job
from xbench.capacity.workload import TrainingWorkload
from xbench.components.specs import Scale
from xbench.errors import RefusedValue, Unsupported, XbenchError
from xbench.training.job import CellJob
from xbench.training.prepare_rows import prepare_rows
from xbench.training.row_set import load_row_set

CONTEXT = ScaledSetting("dataset", "context", "sequence-length")
WIDTH = ScaledSetting("model", "width", "width", multiple=4, multiple_of="heads")
FOLDERS = (scaled_components.FOLDER,)


def job_of(dataset: str, params: dict, model: str = "gpt-mini", **training) -> CellJob:
    rows = load_row_set(dataset, params, FOLDERS)
    data = prepare_rows(rows, dataset, params, "")
    return CellJob(settings_of("adamw", model=model, **{"batch_size": 1, **training}), data, FOLDERS)


@pytest.fixture
def text_job():
    return job_of("generated-text", {"context": 8, "size": 2000})


class TestDataset:
    def test_rows_are_those_of_the_value(self, text_job):
        data = scale_job(text_job, CONTEXT, 300).data
        assert data.facts.input_shape == (300,)
        assert data.params["context"] == 300

    @pytest.mark.parametrize("context", [1, 7, 51, 52, 102, 103, 300, 5000])
    def test_the_text_has_as_many_rows_whatever_the_value_is(self, text_job, context):
        data = scale_job(text_job, CONTEXT, context).data
        assert data.train_rows == 14
        assert data.is_test.any()

    def test_a_full_batch_has_as_many_rows_whatever_the_value_is(self, text_job):
        """Otherwise its memory would fall from some values to the next."""
        job = replace(text_job, settings=settings_of("adamw", model="gpt-mini", batch_size="full"))
        sizes = {
            TrainingWorkload(job, CONTEXT).trainer(context, job.scratch).batch_size
            for context in (51, 52, 102, 103)
        }
        assert len(sizes) == 1

    def test_rows_are_weighed(self, text_job):
        data = scale_job(text_job, CONTEXT, 300).data
        assert set(data.weights) == {300}

    def test_settings_and_the_given_job_stay(self, text_job):
        assert scale_job(text_job, CONTEXT, 300).settings == text_job.settings
        assert text_job.data.params["context"] == 8

    def test_a_text_that_is_too_short_refuses(self, tmp_path):
        path = tmp_path / "text.txt"
        path.write_bytes(b"x" * 1000)
        job = job_of("text-file", {"path": str(path), "context": 8})
        assert scale_job(job, CONTEXT, 99).data.facts.input_shape == (99,)
        with pytest.raises(RefusedValue, match="has 1,000 bytes, too few for a context of 100"):
            scale_job(job, CONTEXT, 100)

    def test_of_images_has_no_scale(self, text_job, tiny_data):
        job = replace(text_job, data=replace(tiny_data, name="generated-text"))
        with pytest.raises(XbenchError, match="consists of images"):
            scale_job(job, CONTEXT, 100)

    def test_memory_that_a_factory_lacks_is_no_refusal(self):
        job = job_of("scaled_components:GREEDY", {"rows": 3}, model="scaled_components:POINT")
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            scale_job(job, ScaledSetting("dataset", "rows", "rows"), 1 << 50)


class TestModel:
    def test_has_the_value(self, text_job):
        trainer = TrainingWorkload(text_job, WIDTH).trainer(20, text_job.scratch)
        assert trainer.model.output.in_features == 20

    def test_has_the_other_settings_that_the_value_needs(self):
        job = job_of("scaled_components:GREEDY", {"rows": 3}, model="scaled_components:POINT")
        scaled = scale_job(job, ScaledSetting("model", "width", "width"), 5)
        assert scaled.settings.model.params == {"width": 5, "depth": 10}
        assert scaled.data is job.data

    def test_may_refuse_a_value(self, text_job):
        with pytest.raises(RefusedValue, match="width = 6 is not divisible by heads = 4"):
            TrainingWorkload(text_job, WIDTH).prepare()(6)


class TestTrials:
    @pytest.mark.parametrize(("axis", "values"), [(CONTEXT, (16, 32)), (WIDTH, (8, 32))])
    def test_measure_the_model_of_the_value(self, text_job, axis, values):
        """AdamW keeps two numbers for each parameter, and positions are parameters, too."""
        run = TrainingWorkload(text_job, axis).prepare()
        smaller, larger = (run(value).final_state_bytes for value in values)
        assert smaller < larger

    def test_rows_are_repeated_for_a_larger_batch(self, text_job):
        settings = settings_of("adamw", model="gpt-mini", batch_size=100)
        trainer = TrainingWorkload(replace(text_job, settings=settings), CONTEXT).trainer(
            300, text_job.scratch
        )
        assert (trainer.batch_size, len(trainer.split.train)) == (100, 100)


class TestRefusing:
    def test_is_of_errors_of_components_only(self):
        with pytest.raises(RefusedValue, match="too long") as caught, refusing():
            raise XbenchError("too long", "shorten it")
        assert caught.value.hint == "shorten it"
        with pytest.raises(Unsupported), refusing():
            raise Unsupported("matrices only")
        with pytest.raises(ValueError, match="a bug"), refusing():
            raise ValueError("a bug")


class TestScale:
    @pytest.mark.parametrize("fields", [{"lowest": 0}, {"multiple": 0}, {"lowest": 5, "highest": 4}])
    def test_without_values_is_refused(self, fields):
        with pytest.raises(ValueError, match="is not valid"):
            Scale(**fields)
