"""Helm for the charts' tests."""

import pytest

from rollway_cluster import binaries
from rollway_testing.helm import Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The pinned helm that the test cluster is installed with, in a home of its own."""
    return Helm(binaries.command("helm"), tmp_path_factory.mktemp("helm"))
