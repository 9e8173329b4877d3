"""What all tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_process import Cli

USER_CODE = Path(__file__).parent / "user_code"


@pytest.fixture(scope="session")
def xbench(tmp_path_factory) -> Cli:
    return Cli(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def allow_user_code() -> tuple[str, str]:
    """The flag that lets suites use `tiny_parts`."""
    return "--allow-import", str(USER_CODE)
