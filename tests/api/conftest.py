from __future__ import annotations

import pytest

from tests.api.scripts import Python


@pytest.fixture(scope="package")
def python(tmp_path_factory) -> Python:
    return Python(tmp_path_factory.mktemp("cache"))
