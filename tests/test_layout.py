"""The house stands as it is described: packages, walls, doctests, no second copy, no stray paths."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["setuptools"]["packages"]
NOT_PACKAGES = {"tests", "docs", "examples", "benchmarks", "build", "dist"}


def folder_of(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def modules() -> list[str]:
    """Every module of the package, by its imported name."""
    found = []
    for package in PACKAGES:
        for file in sorted(folder_of(package).glob("*.py")):
            if file.stem in ("noxfile", "conftest"):
                continue
            found.append(package if file.stem == "__init__" else f"{package}.{file.stem}")
    return found


def test_the_list_of_packages_is_that_of_the_folders():
    folders = {"bonemri"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts and parts[0] not in NOT_PACKAGES and not any(part.startswith(".") for part in parts):
            folders.add(".".join(("bonemri", *parts)))
    assert sorted(PACKAGES) == sorted(folders)


def test_every_data_file_is_packaged():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]
    packaged = {path for package, globs in patterns.items() for glob in globs for path in folder_of(package).glob(glob)}
    data = {
        path
        for package in PACKAGES[1:]
        for path in folder_of(package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".pyi") and "__pycache__" not in path.parts
    }
    assert data <= packaged, f"not in package-data: {sorted(map(str, data - packaged))}"
    assert ROOT / "py.typed" in packaged
    for package, globs in patterns.items():
        for glob in globs:
            assert list(folder_of(package).glob(glob)), f"package-data {package}: {glob} finds nothing"


@pytest.mark.parametrize("name", modules())
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_no_second_copy_of_the_package_is_loaded():
    # `import simulator` works by accident from the root; a module loaded twice has two registries
    floors = {package.split(".")[1] for package in PACKAGES[1:]} | {"cli", "errors"}
    program = (
        "import sys\n"
        f"names = {modules()!r}\n"
        "for name in names: __import__(name)\n"
        "loaded = {n: getattr(m, '__file__', None) for n, m in list(sys.modules.items())}\n"
        f"print([n for n in loaded if n.split('.')[0] in {sorted(floors)!r}])\n"
        "ours = [f for n, f in loaded.items() if f and n.split('.')[0] == 'bonemri']\n"
        "print(len(ours) - len(set(ours)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "0"]


def test_imports_inside_the_package_are_relative():
    for name in modules():
        source = Path(importlib.import_module(name).__file__ or "").read_text()
        assert not re.search(r"^\s*(from|import) bonemri\b", source, flags=re.MULTILINE), name


def test_the_root_loads_nothing_heavy():
    program = "import sys, bonemri, bonemri.cli; print([m for m in ('numpy', 'xarray', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("floor", ["simulator", "estimators", "phantoms"])
def test_a_floor_leaves_the_slow_libraries_for_later(floor):
    # a warm process is to give its first fit within a second, of which these would take most; the bare name of scipy
    # costs nothing, and numba loads it
    slow = ("scipy.special", "scipy.optimize", "scipy.stats", "scipy.sparse", "sympy", "matplotlib", "nibabel")
    program = f"import sys, bonemri.{floor}; print([m for m in {slow!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_knows_the_machine_it_was_written_on():
    places = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users|mnt|data)/\w|[A-Z]:\\\\Users")
    written = {".py", ".toml", ".md", ".cff", ".json", ".html", ".css", ".yml", ".txt", ".ini", ".cfg", ""}
    made = {"build", "dist", "__pycache__", "bonemri-report"}
    files = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") or part.endswith(".egg-info") for part in parts) and parts[0] != ".ci"
        if path.is_file() and path.suffix in written and path != Path(__file__) and not (hidden or made & set(parts)):
            files.append(path)
    assert len(files) > 30
    for path in files:
        found = places.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"


def test_ci_runs_the_commands_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert "pip install . && bonemri validate" in readme
    assert "pip install -e '.[test]' && pytest" in readme
    ci = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in ci  # the command is taken from there, not typed a second time
    assert "pip install -e '.[test]' && pytest" not in ci
    shown = subprocess.run(["bash", ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "pip install -e '.[test]' && pytest"


def test_the_walls_stand():
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if lint is None:
        pytest.skip("import-linter is not installed (pip install -e '.[dev]')")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_stands_in_one_place():
    import bonemri

    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert f"version: {bonemri.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {bonemri.__version__}" in (ROOT / "CHANGELOG.md").read_text()
