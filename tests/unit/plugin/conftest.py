"""The command line against a cluster in memory."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from kubectl_rollway.commandline import plugin
from rollway_testing.fake_cluster import FakeCluster

Run = Callable[..., Result]


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster without anything."""
    return FakeCluster()


@pytest.fixture
def run(cluster: FakeCluster) -> Run:
    """Call the command with some words."""

    def call(*words: str, given: str | None = None) -> Result:
        result = CliRunner().invoke(
            plugin, words, obj=cluster.surroundings(), input=given, prog_name="kubectl rollway"
        )
        # Anything but an exit is a traceback to who typed it.
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call
