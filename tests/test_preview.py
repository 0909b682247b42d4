"""The preview of a phantom: complete in itself, true to the phantom, and every number with its source."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.phantoms import pictures, preview, wording


class Page(HTMLParser):
    """The elements of a page, and whether each that was opened is closed."""

    VOID = ("meta", "image", "path", "link", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def panels(page: Page) -> list[dict[str, str | None]]:
    return [attrs for attrs in page.all("svg") if attrs.get("class") in ("film", "clear")]


def test_every_phantom_has_a_page_complete_in_itself(any_bone):
    page = Page(preview.html(any_bone))
    assert not page.all("script")
    for image in page.all("image"):
        assert str(image["href"]).startswith("data:image/png;base64,")
    # nothing but sources is looked up elsewhere, and those only when they are asked for
    assert all(str(link["href"]).startswith(("#", "https://", "http://")) for link in page.all("a"))
    assert not page.all("link")
    assert len(panels(page)) >= 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))


def test_inner_links_lead_somewhere(any_bone):
    page = Page(preview.html(any_bone))
    ids = {attrs["id"] for _, attrs in page.elements if attrs.get("id")}
    assert {str(link["href"])[1:] for link in page.all("a") if str(link["href"]).startswith("#")} <= ids


def test_every_tissue_number_leads_to_its_source(any_bone):
    """A record of the phantom is a row of the page, with a link that opens the source, or a visible mark."""
    rows = wording.numbers(any_bone.pools.attrs)
    records = json.loads(any_bone.pools.attrs.get("tissue_numbers") or "[]")
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        links = [address for _, address in row["source"] if address]
        assert links or record["unverified"], record
        assert "".join(text for text, _ in row["source"]) == record["source"]
    text = preview.html(any_bone)
    marked = len(re.findall(r'<b class="unverified">unverified</b> ', text.partition("<tbody>")[2]))
    assert marked >= sum(bool(record["unverified"]) for record in records)


def test_a_voxel_is_as_wide_as_it_is(any_bone):
    for view in pictures.views(any_bone):
        rows, columns = view.pools["density"].shape[1:]
        edge = np.asarray(any_bone.pools.attrs["voxel_size"]) * 1e3
        assert view.width / columns == pytest.approx(edge[0])
        assert view.height / rows == pytest.approx(edge[0])
        length, label = pictures.scale_bar(view.width)
        assert 0.1 * view.width <= length <= 0.25 * view.width + 1e-12
        number, unit = label.split()
        assert float(number) * {"mm": 1.0, "µm": 1e-3}[unit] == pytest.approx(length)


def test_slices_keep_the_radiological_convention():
    """Right and front are to the left, head and front are up: one bright voxel tells."""
    from bonemri.phantoms.pools import Pool

    for axis, plane, edge in ((2, "axial", "left"), (1, "axial", "top"), (1, "sagittal", "left"),
                              (0, "sagittal", "top"), (2, "coronal", "left"), (0, "coronal", "top")):
        density = np.ones((6, 6, 6))
        density[(slice(None),) * axis + (5,)] = 50.0  # the last voxel: most right, most anterior, most superior
        pools = [Pool("water", "solution", density, np.ones((6, 6, 6)), 1.5, 0.1, -9.05, D=2e-3)]
        bone = phantoms.Phantom.build(pools, name="cube", resolution=1e-3, field=3.0)
        view = next(view for view in pictures.views(bone) if view.plane == plane)
        image = view.pools["density"].values[0]
        bright = image[:, 0] if edge == "left" else image[0]
        assert (bright == 50.0).all(), (plane, edge)


def test_what_has_no_meaning_is_clear_and_what_has_none_at_all_is_left_out():
    rgba = pictures.coloured(np.array([[np.nan, 0.0], [0.5, 1.0]]), 0.0, 1.0, "viridis")
    assert rgba[0, 0, 3] == 0
    assert (rgba[..., 3].ravel()[1:] == 255).all()
    text = preview.html(phantoms.marrow_block())
    assert wording.quantity("pdff", {"units": "1"}).label in text
    assert "Porosity" not in text.partition('id="true"')[2].partition("</section>")[0]


def test_colours_tell_pools_apart(any_bone):
    colours = pictures.pool_colours(any_bone.pools)
    assert len(set(colours.values())) == any_bone.pools.sizes["pool"]


def test_fractions_are_in_per_cent_and_units_as_people_write_them():
    shown = {name: wording.quantity(name, {"units": unit}) for name, unit in
             (("pdff", "1"), ("T2", "s"), ("D", "mm2/s"), ("ndb", "1"), ("mineral_density", "mg/cm3"))}
    assert [(each.unit, each.scale) for each in shown.values()] == [
        ("%", 1e2), ("ms", 1e3), ("10⁻³ mm²/s", 1e3), ("", 1.0), ("mg/cm³", 1.0)]


@pytest.mark.parametrize(("value", "says"), [
    (0.0, "0"), (-0.5, "−0.5"), (12.3456, "12.3"), (1852.0, "1852"), (2e-7, "2·10⁻⁷"), (1e-6, "10⁻⁶"),
    (float("nan"), "—"), (99.96, "100"), (250000.0, "2.5·10⁵"),
])
def test_numbers_read_as_print(value, says):
    assert wording.number(value) == says


@pytest.mark.parametrize(("source", "links"), [
    ("Zhao 2017, doi:10.1371/journal.pone.0173995", ["https://doi.org/10.1371/journal.pone.0173995"]),
    ("Qin 2011, PMID 21500258", ["https://pubmed.ncbi.nlm.nih.gov/21500258/"]),
    ("Cook 2021, https://hdl.handle.net/2292/63851", ["https://hdl.handle.net/2292/63851"]),
    ("A, doi:10.1016/8756-3282(94)90817-6; B, PMID 1",
     ["https://doi.org/10.1016/8756-3282(94)90817-6", "https://pubmed.ncbi.nlm.nih.gov/1/"]),
    ("as believed by many", []),
])
def test_sources_become_links(source, links):
    attrs = {"tissue_numbers": json.dumps([{"name": "a.T1", "value": 1, "unit": "s", "low": 1, "high": 2,
                                            "source": source, "unverified": not links}])}
    (row,) = wording.numbers(attrs)
    assert [address for _, address in row["source"] if address] == links
    assert "".join(text for text, _ in row["source"]) == source


def test_prescribed_stands_beside_measured():
    numbers = [{"name": "cortical.porosity", "value": 0.12, "unit": "1", "low": 0.05, "high": 0.2,
                "source": "doi:10.1/x", "unverified": False}]
    attrs = {"name": "cortical", "parameters": json.dumps({"bvtv": 0.2}), "tissue_numbers": json.dumps(numbers),
             "bvtv": 0.1995, "porosity": 0.1201, "canal_diameter": 80e-6, "body_volume": 36e-6}
    rows = {row["name"]: row for row in wording.measured(attrs, wording.numbers(attrs))}
    assert (rows["BV/TV"]["asked"], rows["BV/TV"]["value"], rows["BV/TV"]["unit"]) == ("20", "20", "%")
    assert (rows["Porosity"]["asked"], rows["Porosity"]["link"]) == ("12", "n1")
    assert (rows["Canal diameter"]["value"], rows["Canal diameter"]["unit"]) == ("80", "µm")
    assert (rows["Body volume"]["value"], rows["Body volume"]["unit"]) == ("36", "cm³")
    assert rows["Body volume"]["asked"] == ""


def test_text_of_a_file_cannot_become_markup():
    bone = phantoms.marrow_block()
    bone.pools.attrs["condition"] = "<script>alert(1)</script>"
    assert not Page(preview.html(bone)).all("script")


def test_the_same_phantom_gives_the_same_page_and_picture(tmp_path):
    for name in ("a", "b"):
        preview.write(phantoms.vertebra(resolution=6e-3), tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_of_every_phantom_is_drawn(any_bone, tmp_path):
    page, picture = preview.write(any_bone, tmp_path / "index.html")
    assert (page.name, picture.name) == ("index.html", "preview.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, no folder"):
        preview.write(phantoms.marrow_block(), tmp_path / "file" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
