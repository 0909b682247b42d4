"""`pytest benchmarks` collects every script of this folder."""

from pathlib import Path

import pytest


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect scripts by their suffix alone; a file that was named on the command line is collected by pytest."""
    if file_path.suffix == ".py" and file_path.name != "conftest.py" and not parent.session.isinitpath(file_path):
        return pytest.Module.from_parent(parent, path=file_path)
    return None
