"""Sources: a DOI becomes one whole link, and stands for one paper wherever it is cited."""

from __future__ import annotations

import html
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

import bonemri
from bonemri import estimators
from bonemri.simulator import equations
from bonemri.simulator.acquisition import protocols
from bonemri.validation.report.wording import pretty

HOME = Path(bonemri.__file__).parent
FLOORS = ("simulator", "phantoms", "estimators", "validation")
# what the eye takes for a DOI: up to white space, less the marks that end a phrase
READ = re.compile(r"doi:(10\.\d{4,9}/\S+?)[\"'`:;,.)]*(?=\s|$)")
CITED = re.compile(r"(\d{1,4}):(\w{1,7}) \((\d{4})\)[,\s]+doi:(10\.\d{4,9}/\S+?)[\"'`:;,.)]*(?=\s|$)")


def texts() -> dict[str, str]:
    """Every source that is declared, by where."""
    found = {f"equation {name}": equations.get(name).source for name in equations.registry}
    found |= {f"estimator {name}": estimators.get(name).source for name in estimators.registry}
    found |= {f"protocol {name}": protocols.get(name).source for name in protocols}
    for path in sorted((HOME / "estimators").glob("*.claims.toml")):
        for number, claim in enumerate(tomllib.loads(path.read_text()).get("claim", [])):
            found[f"{path.name}[{number}]"] = claim.get("source", "")
    return {where: text for where, text in found.items() if "doi:" in text}


TEXTS = texts()


@pytest.mark.parametrize("where", TEXTS)
def test_a_doi_becomes_one_whole_link(where: str) -> None:
    shown = str(pretty(TEXTS[where]))
    links = [html.unescape(link) for link in re.findall(r'<a href="https://doi\.org/([^"]*)">', shown)]
    assert links == READ.findall(TEXTS[where]) and links


@pytest.mark.parametrize(("text", "doi"), [
    ("Silva 1994 (doi:10.1016/8756-3282(94)90817-6).", "10.1016/8756-3282(94)90817-6"),
    ("MRM 41:614 (1999), doi:10.1002/(SICI)1522-2594(199903)41:3<614::AID-MRM26>3.0.CO;2-1, and",
     "10.1002/(SICI)1522-2594(199903)41:3<614::AID-MRM26>3.0.CO;2-1"),
    ("Cox and Snell, doi:10.1111/j.2517-6161.1968.tb00724.x. So", "10.1111/j.2517-6161.1968.tb00724.x"),
])  # fmt: skip
def test_old_dois_end_where_they_end(text: str, doi: str) -> None:
    assert re.findall(r'href="([^"]*)"', html.unescape(str(pretty(text)))) == [f"https://doi.org/{doi}"]


def test_a_doi_and_a_volume_and_page_go_together() -> None:
    papers, dois = defaultdict(set), defaultdict(set)
    for path in (path for floor in FLOORS for path in (HOME / floor).rglob("*") if path.suffix in (".py", ".toml")):
        text = re.sub(r"\s+", " ", path.read_text())
        for volume, page, year, doi in CITED.findall(text):
            papers[doi.lower()].add((volume, page, year))
            dois[volume, page, year].add(doi.lower())
    assert len(papers) > 40
    assert {doi: cited for doi, cited in papers.items() if len(cited) > 1} == {}
    assert {cited: doi for cited, doi in dois.items() if len(doi) > 1} == {}
