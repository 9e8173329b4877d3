"""Tests that specs accept fields of the previous version, with a warning."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass, replace

import pytest

from xbench.components.removed_fields import without_fields
from xbench.components.specs import DatasetSpec, ModelSpec, Spec


@without_fields("old", "older")
@dataclass(frozen=True, kw_only=True)
class SampleSpec(Spec):
    size: int = 1


def test_removed_field_is_ignored_with_a_warning_at_the_callers_line():
    with pytest.warns(
        DeprecationWarning, match="SampleSpec: the field 'old' was removed.*delete it"
    ) as caught:
        spec = SampleSpec(factory="a:b", size=2, old=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert (spec.size, spec.removed_fields, hasattr(spec, "old")) == (2, ("old",), False)
    assert spec == SampleSpec(factory="a:b", size=2)


def test_each_removed_field_gives_a_warning():
    with pytest.warns(DeprecationWarning) as caught:
        spec = SampleSpec(factory="a:b", older=None, old=None)
    assert len(caught) == 2
    assert spec.removed_fields == ("old", "older")


def test_no_warning_without_removed_fields():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = replace(SampleSpec(factory="a:b"), size=3)
    assert (spec.size, spec.removed_fields) == (3, ())


def test_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="oldest"):
        SampleSpec(factory="a:b", oldest=1)


def test_signature_has_the_current_fields():
    assert set(inspect.signature(SampleSpec).parameters) == {"factory", "summary", "reference", "size"}


@pytest.mark.parametrize(("spec_type", "field"), [(DatasetSpec, "is_listed"), (ModelSpec, "files")])
def test_recently_removed_fields_are_accepted(spec_type, field):
    with pytest.warns(DeprecationWarning, match=f"{spec_type.__name__}: the field '{field}'"):
        assert spec_type(factory="a:b", **{field: None}).removed_fields == (field,)
