# SPDX-License-Identifier: GPL-2.0-or-later
"""report.html as a browser shows it: on a desk, on a phone, in the dark, on paper; and that it asks for nothing."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from lab.report import html
from lab.verdict import Status
from tests import runs
from tests.browser.chromium import Browser, Page

NAMES = [
    f"{arch}/{kernel}/{mechanism}/{load}"
    for arch in ("x86_64", "aarch64")
    for kernel in ("bookworm", "trixie")
    for mechanism in ("reload", "refcount", "invalidate", "adaptive", "transaction", "livepatch")
    for load in ("syscall", "irq", "mixed")
]
SPECIAL = {1: Status.FAIL, 4: Status.CRASH, 7: Status.HANG, 10: Status.ERROR, 16: Status.SKIP}
DRAWN = (0, 1, 4, 7, 13, 40)  # cells with pictures
VIEWS = {"desktop": (1280, False), "phone": (360, False), "dark": (1280, True), "phone-dark": (360, True)}

# Every text whose colour is too close to what is behind it (WCAG AA), with the ratio.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const c = [r, g, b].map(v => v / 255).map(
    v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * c[0] + .7152 * c[1] + .0722 * c[2]; };
  const behind = node => { for (; node; node = node.parentElement) {
    const found = rgba(getComputedStyle(node).backgroundColor); if (found[3] === 255) return found; } return null; };
  const poor = new Set();
  for (const node of document.querySelectorAll("body *")) {
    if (node.closest("svg") || ![...node.childNodes].some(one => one.nodeType === 3 && one.data.trim())) continue;
    const [a, b] = [rgba(getComputedStyle(node).color), behind(node)].map(light).sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.add(`${node.tagName}.${node.className}: ${ratio.toFixed(2)}`);
  }
  return [...poor];
})()"""

BOXES = """[...document.querySelectorAll("a.box")].map(box => { const r = box.getBoundingClientRect();
  return [box.childNodes[0].data, r.x + r.width / 2, r.y + scrollY + 3, r.width, r.height,
          getComputedStyle(box).backgroundColor, r.right < box.closest(".wide").getBoundingClientRect().right]; })"""


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with every verdict; the pictures are those of a few cells."""
    folder = tmp_path_factory.mktemp("run")
    found = []
    for at, name in enumerate(NAMES):
        said = runs.raw(swaps=12, gaps=200, seed=at) if at in DRAWN else None
        found.append(runs.put(folder, name, SPECIAL.get(at, Status.PASS), said=said))
    page = folder / "report.html"
    page.write_text(html.render(runs.head(found, more=["x86_64/sid/refcount/mixed"]), found, folder))
    return page


@pytest.fixture(scope="module", params=VIEWS)
def shown(request: pytest.FixtureRequest, browser: Browser, report: Path) -> tuple[str, Page]:
    """The page in each view."""
    width, dark = VIEWS[request.param]
    page = Page(browser, width=width, height=900, dark=dark)
    page.open(report)
    return request.param, page


@pytest.fixture
def desktop(browser: Browser, report: Path) -> Page:
    """The page on a desk."""
    page = Page(browser, width=1280, height=900)
    page.open(report)
    return page


def kept(picture: bytes, name: str) -> Image.Image:
    """The picture, decoded; written to LAB_SCREENSHOTS where somebody wants to look at it."""
    if folder := os.environ.get("LAB_SCREENSHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(picture)
    return Image.open(io.BytesIO(picture)).convert("RGB")


def test_it_fits_can_be_read_and_asks_for_nothing(shown: tuple[str, Page], report: Path) -> None:
    view, page = shown
    width = VIEWS[view][0]
    assert page.say("document.documentElement.scrollWidth") <= width
    assert page.say(CONTRAST) == []
    hidden = """[...document.querySelectorAll("section, h2, h3, figure, .row svg, .grid .box")].filter(
        node => { const r = node.getBoundingClientRect(); return r.width < 40 || r.height < 12; }).length"""
    assert page.say(hidden) == 0
    assert page.say('document.querySelectorAll(".row svg").length') >= 6 * len(DRAWN)
    assert page.say('parseFloat(getComputedStyle(document.querySelector(".row span")).fontSize)') >= 11
    assert page.requests() == [report.as_uri()]
    assert page.complaints() == []


def test_the_boxes_of_the_matrix_are_painted_where_and_as_the_page_says(shown: tuple[str, Page]) -> None:
    view, page = shown
    picture = kept(page.picture(), view)
    assert picture.width == VIEWS[view][0]
    boxes = page.say(BOXES)
    assert len(boxes) == len(NAMES)
    seen: dict[str, tuple[int, int, int]] = {}
    for verdict, x, y, width, height, colour, inside in boxes:
        assert width > 40 and height > 25
        told = tuple(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
        if inside:  # the others are reached by scrolling within the matrix
            assert picture.getpixel((round(x), round(y))) == told
            seen[verdict] = told
    # Verdicts that differ in what is to be done differ in colour; every one is written in its box, too.
    assert len({seen[name] for name in ("PASS", "FAIL") if name in seen}) == 2
    ground = picture.getpixel((2, 2))
    assert (sum(ground) < 200) == VIEWS[view][1]
    assert ground not in seen.values()


def test_every_link_leads_to_its_cell(desktop: Page) -> None:
    page = desktop
    wrong = """[...document.querySelectorAll("a[href]")].filter(link => !link.hash || link.host
        || !document.getElementById(link.hash.slice(1))).length"""
    assert page.say(wrong) == 0
    leads = """[...document.querySelectorAll("a.box")].every(box =>
        box.title.startsWith(document.getElementById(box.hash.slice(1)).querySelector("h3").textContent + ":"))"""
    assert page.say(leads) is True
    assert page.say('document.querySelectorAll(".box.none").length') == 1


def test_on_paper_everything_is_unfolded(browser: Browser, report: Path) -> None:
    page = Page(browser, width=1280, height=900, media="print")
    page.open(report)
    folded = """[...document.querySelectorAll("details:not([open]) > :not(summary)")].filter(
        node => node.getBoundingClientRect().height < 5).length"""
    assert page.say('document.querySelectorAll("details:not([open])").length') > 5
    assert page.say(folded) == 0
    assert page.printed().startswith(b"%PDF-")


HOSTILE = '"><script>document.title="owned"</script><img src=http://127.0.0.1:9/x onerror=alert(1)>{{7*7}}\x1b[2J\u202e'


def test_what_a_guest_says_stays_text(browser: Browser, tmp_path: Path) -> None:
    page = Page(browser, width=360, height=900)
    said = runs.raw(swaps=3, gaps=20)
    for swap in said["swaps"]:
        swap["edition"] = HOSTILE
    result = runs.hostile(tmp_path, said, HOSTILE)
    path = tmp_path / "report.html"
    path.write_text(html.render(runs.head([result]), [result], tmp_path))
    page.open(path)
    assert page.say("document.scripts.length + document.images.length") == 0
    assert "owned" not in page.say("document.title")
    assert page.requests() == [path.as_uri()] and page.complaints() == []
    assert page.say("document.documentElement.scrollWidth") <= 360
    assert page.say('document.body.textContent.split("<script>").length') > 5
