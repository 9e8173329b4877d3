"""The HTML page of runs, opened from disk in Chromium."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.report.page_samples import large_page, page, varied_page
from tests.report.report_samples import cell, failed, measured, run
from xbench.report.figure import Figure, Series
from xbench.report.page import make_page

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
RATES = {0.5: 90, 1e-05: 1400, 0.25: 800, 3: 70, 0.01: 10_000, 20: 2}
HOSTILE = "</script><img src=x onerror=alert(1)>"

pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "varied.html").write_text(make_page([varied_page()]), encoding="utf-8")
    (folder / "large.html").write_text(make_page([large_page(cells=120)]), encoding="utf-8")
    many = [cell(f"adam lr={rate}", accuracy=(rate * 3 % 8) / 10) for rate in range(8)]
    (folder / "turned.html").write_text(make_page([page(many)]), encoding="utf-8")
    rates = [
        cell(name, settings={"rate": rate}, ran={"train_size": size})
        for name, (rate, size) in zip("abcdef", RATES.items(), strict=True)
    ]
    (folder / "settings.html").write_text(make_page([page(rates)]), encoding="utf-8")
    named = [cell(f"adam lr={rate}", accuracy=0.5) for rate in [*RATES, 20.5, "none"]]
    (folder / "named.html").write_text(make_page([page(named)]), encoding="utf-8")
    name = HOSTILE
    hostile = failed(name, "error", name, settings={name: name}), measured("sgd")
    figure = Figure(
        "key", "first", name, "points", name, name, (Series(name, (1.0,), (1.0,), labels=(name,)),)
    )
    declared = run(hostile, suite=name, warnings=[name])
    hostile_page = page(hostile, [figure], declared, logs={hostile[0].cell_id: name})
    (folder / "hostile.html").write_text(make_page([hostile_page]), encoding="utf-8")
    return folder


@pytest.fixture
def open_page(browser, files):
    """Open a page; at the end, check that it reported no error and asked for nothing but itself."""
    problems: list[str] = []
    opened = []

    def open_one(name: str, width: int = 1440, scheme: str = "light", script: str = ""):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        address = (files / name).as_uri()
        tab.on("console", lambda message: problems.append(f"console: {message.type}: {message.text}"))
        tab.on("pageerror", lambda error: problems.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request", lambda request: request.url == address or problems.append(f"request: {request.url}")
        )
        tab.add_init_script(script)
        tab.goto(address)
        opened.append(tab)
        return tab

    yield open_one
    for tab in opened:
        tab.wait_for_timeout(100)
        tab.close()
    assert problems == []


def texts(tab, selector: str) -> list[str]:
    return [text.strip() for text in tab.locator(selector).all_text_contents()]


def test_cells_are_sorted_by_click_and_by_key(open_page):
    tab = open_page("large.html")
    header = tab.locator(".cells thead th", has_text="test accuracy")
    column = ".cells tbody > tr:first-child > td:nth-child(5)"
    start = texts(tab, column)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert texts(tab, column) == sorted(start, key=float)
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert texts(tab, column) == sorted(start, key=float, reverse=True)
    header.locator("button").press("Space")
    assert header.get_attribute("aria-sort") == "none"
    assert texts(tab, column) == start


def test_figures_in_rows_order_the_optimizers(open_page):
    tab = open_page("varied.html")
    table = tab.locator("table.figures").first
    names = "table.figures >> nth=0 >> thead th"
    assert texts(tab, names) == ["figure", "sgd", "adam", "lbfgs", "muon"]
    header = table.locator("tbody th", has_text="test accuracy")
    header.locator("button").click()
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert texts(tab, names) == ["figure", "adam", "sgd", "lbfgs", "muon"]


def test_optimizers_in_rows_are_sorted_by_a_figure(open_page):
    tab = open_page("turned.html")
    table = tab.locator("table.figures").first
    table.locator("thead button", has_text="test accuracy").click()
    accuracies = [(rate * 3 % 8, f"adam lr={rate}") for rate in range(8)]
    assert [text.strip() for text in table.locator("tbody th").all_text_contents()] == [
        name for _, name in sorted(accuracies)
    ]


@pytest.mark.parametrize(
    ("title", "names"), [("rate", list("becadf")), ("examples per epoch", list("fdacbe"))]
)
def test_settings_are_sorted_by_their_values(open_page, title, names):
    tab = open_page("settings.html")
    tab.locator("table.figures tbody button", has_text=title).click()
    assert texts(tab, "table.figures thead th")[1:] == names


def test_numbers_in_names_are_sorted_by_their_values(open_page):
    tab = open_page("named.html")
    tab.locator("table.figures thead button", has_text="optimizer").click()
    rates = [*(f"adam lr={rate}" for rate in (1e-05, 0.01, 0.25, 0.5, 3, 20, 20.5)), "adam lr=none"]
    assert texts(tab, "table.figures tbody th") == rates


def test_rows_are_filtered_by_text(open_page):
    tab = open_page("large.html")
    box = tab.locator(".filterable", has=tab.locator("table.cells"))
    rows = box.locator("tbody:visible")
    assert rows.count() == 120
    box.locator("input").fill("lr=3 done")
    assert rows.count() == 12
    assert box.locator("output").text_content() == "12 of 120 rows"
    box.locator("input").fill("no such text")
    assert rows.count() == 0
    box.locator("input").fill("")
    assert rows.count() == 120


def test_plots_appear_when_they_are_scrolled_to(open_page):
    tab = open_page("varied.html", width=390)
    assert tab.locator(".plot .main-svg").count() == 0
    for place in range(3):
        plot = tab.locator(".plot").nth(place)
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    assert "STAND-IN DATA" in tab.locator(".plot").first.text_content()
    assert tab.locator(".plot").nth(1).locator(".bars .point").count() == 4


def test_printing_draws_all_plots(open_page):
    tab = open_page("varied.html", width=390)
    tab.locator(".plot").first.scroll_into_view_if_needed()
    tab.locator(".plot .main-svg").first.wait_for()
    assert tab.locator(".plot:has(.main-svg)").count() < 3
    tab.pdf()
    assert tab.locator(".plot:has(.main-svg)").count() == 3


def test_a_browser_that_cannot_unpack_says_so(open_page):
    tab = open_page("varied.html", script="delete window.DecompressionStream")
    tab.locator(".plot").first.scroll_into_view_if_needed()
    tab.locator(".plot", has_text="too old").first.wait_for()


def test_details_are_made_when_they_are_opened(open_page):
    tab = open_page("varied.html")
    details = tab.locator(".cells details").first
    assert details.locator("dl").count() == 0
    details.locator("summary").press("Enter")
    details.locator(".trace .main-svg").first.wait_for()
    assert "2m 05s" in details.text_content()
    assert details.locator(".trace .scatterlayer .trace").count() == 3
    tab.locator(".cells tbody", has_text="oom").locator("td").first.click()
    log = tab.locator(".cells pre")
    assert log.text_content() == "Traceback\n\tlast line"


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_nothing_overflows_and_colours_follow_the_scheme(open_page, width, scheme):
    tab = open_page("varied.html", width, scheme)
    for plot in tab.locator(".plot[data-figure]").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    tab.locator(".cells summary").first.click()
    tab.locator(".trace .main-svg").first.wait_for()
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    background, text, axis = tab.evaluate(
        """() => {
            const style = getComputedStyle(document.body);
            const label = document.querySelector(".plot .xtitle");
            return [style.backgroundColor, style.color, getComputedStyle(label).fill];
        }"""
    )
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    assert text == axis == {"light": "rgb(27, 31, 36)", "dark": "rgb(228, 232, 237)"}[scheme]


def test_hostile_names_stay_text(open_page):
    tab = open_page("hostile.html")
    tab.locator(".plot").scroll_into_view_if_needed()
    tab.locator(".plot .main-svg").first.wait_for()
    tab.locator(".cells summary").first.click()
    assert tab.locator(".cells pre").text_content() == HOSTILE
    assert HOSTILE in tab.locator(".plot").text_content()
    assert tab.locator("img").count() == 0
