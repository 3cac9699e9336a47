"""Marks each test with the level whose folder it is in."""

from pathlib import Path

import pytest

LEVELS = ("unit", "integration", "e2e")

# A failed assert of a shared module shows its values, as a test's own does.
pytest.register_assert_rewrite("rollway_testing")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        level = Path(item.path).relative_to(config.rootpath / "tests").parts[0]
        if level in LEVELS:
            item.add_marker(level)
