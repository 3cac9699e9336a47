"""Marks each test with the level whose folder it is in."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

LEVELS = ("unit", "integration", "e2e")

# A failed assert of a shared module shows its values, as a test's own does.
pytest.register_assert_rewrite("rollway_testing")

# A change is not to fail for a bug that an earlier one made: the same histories each time, others in the thorough run
# and with --hypothesis-seed.
settings.register_profile("rollway", deadline=None, derandomize=not os.environ.get("ROLLWAY_THOROUGH"))
settings.load_profile("rollway")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        level = Path(item.path).relative_to(config.rootpath / "tests").parts[0]
        if level in LEVELS:
            item.add_marker(level)
    if not os.environ.get("ROLLWAY_THOROUGH"):
        long = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
