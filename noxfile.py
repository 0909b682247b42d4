"""A menu for contributors: `nox -l` lists it, `nox -s tests` runs one."""

import nox

nox.options.sessions = ["tests", "lint", "types"]
nox.options.default_venv_backend = "venv"


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the import walls between the floors."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check types. mypy wants a folder whose name is an identifier: the tree is copied to one called bonemri."""
    session.install("-e", ".[dev]")
    place = session.create_tmp()
    session.run("git", "checkout-index", "--all", "--force", f"--prefix={place}/bonemri/", external=True)
    session.chdir(place)
    session.run("mypy", "--config-file", "bonemri/pyproject.toml", "-p", "bonemri")


@nox.session
def docs(session: nox.Session) -> None:
    """Run the Python blocks of README.md and CONTRIBUTING.md."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/test_readme.py", "tests/test_examples.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; ratios to a peer hold better than absolute figures."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "benchmarks", *session.posargs)
