"""The page in a browser, end to end: Chromium, headless, where there is one."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from pages import (
    AXE,
    CHROMIUM,
    PATIENCE,
    Library,
    Served,
    address,
    decoded,
    saved,
    shown,
    step,
    sync_api,
    tints,
    until,
)
from PIL import Image
from run_folders import make

from ral_env import bundle
from ral_env.nets import joint
from ral_env.viewer.answers import answer

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found: set CHROMIUM"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the tiny bundle."""
    return make(tmp_path_factory.mktemp("runs") / "mine", tiny)


@pytest.fixture(scope="module")
def served(tiny: Path, run: Path) -> Iterator[Any]:
    """A server in a thread that offers the tiny bundle and the run."""
    found = Served(Library(run.parent, [str(tiny)]))
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, headless."""
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def tab(browser, served, tiny) -> Iterator[Callable[..., Any]]:
    """Opens a tab on the tiny bundle; a fault of its scripts, or a foreign request, fails."""
    faults: list[str] = []
    contexts = []

    def opened(
        state: str = "", wait: str = "body[data-painted]", source: Path = tiny, **options: Any
    ) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((served.address, "blob:", "data:"))
                else faults.append(request.url)
            ),
        )
        page.goto(f"{served.address}#source={quote(str(source), safe='')}&{state}")
        page.wait_for_selector(wait, state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def test_what_is_saved_is_what_is_shown(tab, tiny):
    page = tab("seed=3")
    codes = np.load(io.BytesIO(saved(page, "Save MLE prior as NPY")))[0]
    png = np.asarray(Image.open(io.BytesIO(saved(page, "Save MLE prior as PNG"))))
    assert np.array_equal(png, shown(page)) and np.array_equal(png, decoded(tiny, codes))
    film: Any = Image.open(io.BytesIO(saved(page, "Save MLE prior as GIF")))
    assert film.n_frames == 65
    page.get_by_role("slider", name="Step").fill("20")
    until(lambda: page.locator("figure").first.get_attribute("data-drawn") == "20")
    half = np.load(io.BytesIO(saved(page, "Save MLE prior as NPY")))[0]
    assert np.array_equal(half[:20], codes[:20]) and (half[20:] == 16).all()
    png = np.asarray(Image.open(io.BytesIO(saved(page, "Save MLE prior as PNG"))))
    assert np.array_equal(png, shown(page)) and len(np.unique(png[16:].reshape(-1, 3), axis=0)) == 2


def test_codes_are_painted_one_by_one_forth_and_back(tab):
    page = tab("seed=3&speed=120")
    whole = shown(page)

    def is_empty(picture):
        return len(np.unique(picture.reshape(-1, 3), axis=0)) == 2

    page.get_by_role("button", name="To the start").click()
    until(lambda: step(page) == 0 and is_empty(shown(page)))
    page.get_by_role("button", name="One code on").click()
    until(lambda: step(page) == 1 and not is_empty(shown(page)))
    first = shown(page)
    assert not np.array_equal(first[:4, :4], first[:4, 8:12])
    page.get_by_role("button", name="One code on").click()
    until(lambda: step(page) == 2 and not np.array_equal(shown(page), first))
    page.get_by_role("button", name="One code back").click()
    until(lambda: step(page) == 1 and np.array_equal(shown(page), first))
    page.get_by_role("button", name="Play").click()
    until(lambda: step(page) == 64)
    assert np.array_equal(shown(page), whole)
    assert page.get_by_role("button", name="Play").is_visible()


def test_a_large_picture_of_two_levels_is_saved_as_it_is_shown(tab):
    page = tab("seed=2&level=1", source=Path("RALCelebA128-v0"))
    codes = np.load(io.BytesIO(saved(page, "Save MLE prior as NPY")))[0]
    assert codes.shape == (1280,)
    assert np.array_equal(shown(page), decoded(bundle.find("faces128"), codes))
    assert page.get_by_role("grid").first.get_by_role("gridcell").count() == 1024


def test_overlays_tint_each_cell_by_what_is_known_of_it(tab, tiny):
    page = tab("seed=3")
    library = Library(Path("nowhere"), [str(tiny)])

    def ask(question, **given):
        return answer(library, question, {"source": str(tiny), **given})

    painted: Any = ask("painting", policy="mle", seed=3)
    scores: Any = ask("scores", codes=painted["codes"], rows=8)
    assert not tints(page).any()
    page.get_by_label("Overlay").select_option("entropy")
    until(lambda: tints(page).any())
    expected = 0.7 * np.array(painted["entropies"]) / np.log(16)
    assert tints(page)[:, 3] / 255 == pytest.approx(expected, abs=0.01)
    patches = np.array(scores["map"])
    middles = (np.arange(8) + 0.5) / 8
    rows, columns = ((middles * length).astype(int) for length in patches.shape)
    for overlay, values in (
        ("rewards", np.array(scores["cells"])),
        ("scores", patches[rows][:, columns].flatten()),
    ):
        page.get_by_label("Overlay").select_option("none")
        until(lambda: not tints(page).any())
        page.get_by_label("Overlay").select_option(overlay)
        page.get_by_text("The strongest tint is").wait_for()
        until(lambda: tints(page).any())
        red, green, _, opacity = tints(page).T
        told = opacity > 3  # of fainter ones the browser keeps no exact colour
        assert told.any() and np.array_equal(green[told] > red[told], values[told] >= 0)
        order = np.argsort(np.abs(values))
        assert (np.diff(opacity[order]) >= -1).all()


def test_two_tabs_with_one_seed_show_one_picture(tab):
    first, second = tab("seed=6"), tab("seed=7")
    pictures = [shown(first), shown(second)]
    assert not np.array_equal(pictures[0], pictures[1])
    second.get_by_label("Seed").fill("6")
    second.get_by_label("Seed").press("Enter")
    until(lambda: np.array_equal(shown(second), pictures[0]))
    assert np.array_equal(shown(first), pictures[0])


def test_mle_and_ral_paint_side_by_side_and_a_real_picture_beside_them(tab):
    page = tab("seed=3", source=Path("mnist-ral"))
    titles = page.locator("figure .title").all_inner_texts()
    assert titles == ["MLE prior", "RAL policy", "Real"]
    codes = [
        np.load(io.BytesIO(saved(page, f"Save {title} as NPY")))[0]
        for title in ("MLE prior", "RAL policy")
    ]
    for name, written in zip(("mnist", "mnist-ral"), codes, strict=True):
        made = bundle.load(name)
        noise = torch.Generator().manual_seed(3)  # the same for both
        empty = [torch.full((1, 8, 8), made.layout.empty)]
        grids = joint.sample(made.priors, empty, 1.0, noise)
        assert written.tolist() == made.layout.flatten(grids)[0].tolist()
    assert not np.array_equal(*codes)


def test_what_waits_does_not_move(tab):
    page = tab("seed=3")
    page.evaluate("document.body.dataset.busy = 1")
    until(
        lambda: page.evaluate("getComputedStyle(document.body, '::before').visibility") == "visible"
    )
    assert not page.evaluate("document.getAnimations().length")


def test_a_closed_tab_leaves_nothing_behind(tab, served):
    page = tab("seed=1")
    assert served.connections
    page.context.close()
    until(lambda: not served.connections)


def test_a_link_holds_the_whole_state(tab):
    page = tab("seed=1")
    page.get_by_label("Seed").fill("12")
    page.get_by_label("Seed").press("Enter")
    page.get_by_role("slider", name="Temperature").fill("0.7")
    page.get_by_role("slider", name="Step").fill("30")
    page.get_by_label("Overlay").select_option("entropy")
    page.locator("[data-cell='9']").first.click()
    page.get_by_text("Row 2, column 2").first.wait_for()
    until(lambda: "12" in (page.locator("body").get_attribute("data-painted") or ""))
    until(lambda: "cell=9" in address(page))  # the address follows a little later
    state = address(page).partition("#")[2]
    other = tab(state)
    other.get_by_text("Row 2, column 2").first.wait_for()
    assert step(other) == 30 and other.get_by_label("Seed").input_value() == "12"
    assert other.get_by_label("Overlay").input_value() == "entropy"
    until(lambda: np.array_equal(shown(other), shown(page)))
    assert other.locator(".candidates").first.inner_text() == (
        page.locator(".candidates").first.inner_text()
    )


def test_the_link_is_copied_by_its_button(tab):
    page = tab("seed=4&step=9")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert (
        "seed=4" in copied
        and "step=9" in copied
        and copied.partition("#")[0] == page.url.partition("#")[0]
    )


def test_all_of_watching_is_done_by_keyboard_alone(tab):
    page = tab("seed=3&step=10", wait=".candidates li")
    grid = page.get_by_role("grid").first
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        role = "document.activeElement.getAttribute('role') || document.activeElement.tagName"
        reached.append(page.evaluate(role))
        if reached[-1] == "gridcell":
            break
    assert reached[-1] == "gridcell", reached
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.cell") == "17"
    page.get_by_text("Row 3, column 2").first.wait_for()
    five = page.locator(".candidates").first.get_by_role("listitem")
    assert five.count() == 5
    assert all(re.search(r"\d\xa0%", words) for words in five.all_inner_texts())
    assert grid.locator("[aria-selected]").get_attribute("data-cell") == "17"
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.keyboard.press("Space")
    before = step(page)
    page.get_by_role("slider", name="Step").focus()
    page.keyboard.press("ArrowLeft")
    assert step(page) == before - 1 if before else True


def test_a_picture_is_completed_and_a_wrong_file_gets_words(tab, tmp_path, tiny):
    page = tab("tab=complete&rows=3", wait="body[data-completed]")
    noise = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (tmp_path / "letter.png").write_text("no picture")
    original = page.locator(".given img").first
    first = original.get_attribute("src")
    page.locator("#file").set_input_files(tmp_path / "noise.png")
    until(lambda: original.get_attribute("src") != first)
    assert page.locator(".completions img").count() == 4
    mine = [each.get_attribute("src") for each in page.locator("img").all()]
    page.locator("#file").set_input_files(tmp_path / "letter.png")
    words = re.compile(r"letter\.png cannot be read \(.*\): expected a PNG, JPEG or other image")
    page.get_by_role("alert").filter(has_text=words).wait_for()
    assert [each.get_attribute("src") for each in page.locator("img").all()] == mine
    codes = np.load(io.BytesIO(saved(page, "Save the completions' codes as NPY")))
    assert codes.shape == (4, 64)
    drawn = np.asarray(Image.open(io.BytesIO(saved(page, "Save all as PNG"))))
    assert np.array_equal(drawn[-130:-2:4, -130:-2:4], decoded(tiny, codes[3]))  # each 4 x 4
    # A link holds the picture, too, and what is kept of it.
    until(lambda: "picture=" in address(page))
    other = tab(address(page).partition("#")[2], wait="body[data-completed]")
    assert [each.get_attribute("src") for each in other.locator("img").all()] == mine
    page.get_by_role("slider", name="Rows kept").fill("6")
    page.get_by_text("6 of 8 rows").wait_for()


def test_a_drawing_is_completed(tab):
    page = tab("tab=complete&rows=3", wait="body[data-completed]")
    before = page.locator(".given img").first.get_attribute("src")
    page.get_by_role("button", name="Draw one").click()
    box = page.locator(".pad").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 60, steps=4)
    page.mouse.up()
    until(lambda: page.locator(".given img").first.get_attribute("src") != before)


def test_a_game_is_played_to_its_reward(tab, tiny):
    page = tab("tab=play&given=7&seed=2", wait=".palette button")
    page.get_by_text("8 to go").wait_for()
    page.locator(".palette button[data-code='3']").click()
    page.get_by_text("7 to go").wait_for()
    page.locator(".candidates button").first.click()
    page.get_by_text("6 to go").wait_for()
    until(lambda: "picked=3." in address(page))  # a link holds the game
    other = tab(address(page).partition("#")[2], wait=".palette button")
    other.get_by_text("6 to go").wait_for()
    page.get_by_role("button", name="Take back").click()
    page.get_by_text("7 to go").wait_for()
    page.get_by_role("button", name="Let the prior finish").click()
    page.get_by_text(re.compile(r"Done: you earn [+\u2212]\d")).wait_for()
    page.get_by_text(re.compile(r"you beat \d of 8")).wait_for()
    codes = np.load(io.BytesIO(saved(page, "Save as NPY")))
    assert codes.shape == (1, 64) and codes[0, 56] == 3 and codes.max() < 16
    asked = {"source": str(tiny), "policy": "mle", "codes": codes[0].tolist()}
    paid: Any = answer(Library(Path("nowhere"), [str(tiny)]), "finish", asked)
    earned = f"{paid['rewards'][0]:+.2f}".replace("-", "\u2212")
    page.get_by_text(f"Done: you earn {earned}.").wait_for()


def test_a_blind_vote_tells_afterwards(tab):
    page = tab("tab=compare&round=4", wait="body[data-round]")
    assert page.locator(".sheets .title").all_inner_texts() == ["Left", "Right"]
    left = page.get_by_role("button", name="Left looks more real")
    until(left.is_enabled)
    left.click()
    titles = page.locator(".sheets .title").all_inner_texts()
    assert sorted(each.partition(": ")[2] for each in titles) == ["MLE prior", "Real"]
    chosen = titles[0].partition(": ")[2]
    page.get_by_text(f"You chose {chosen}. Of 1 votes").wait_for()
    page.get_by_role("button", name="Next round").click()
    until(lambda: page.locator("body").get_attribute("data-round") == "5")
    assert page.locator(".sheets .title").all_inner_texts() == ["Left", "Right"]


def test_a_runs_policies_are_on_a_slider_beside_its_curves(tab, run):
    page = tab("tab=compare", "body[data-compared]", source=run)
    title = page.locator("figure .title").first
    assert title.inner_text() == "RAL, step 150"
    last = page.locator("figure img").first.get_attribute("src")
    page.get_by_role("slider", name="Checkpoint").fill("0")
    until(lambda: title.inner_text() == "MLE prior")
    assert page.locator("figure img").first.get_attribute("src") != last
    until(lambda: "at=mle" in address(page))
    other = tab(address(page).partition("#")[2], "body[data-compared]", source=run)
    assert other.locator("figure .title").first.inner_text() == "MLE prior"
    words = page.locator(".curve title").all_text_contents()
    assert words == ["reward: -0.5 after 1; from -0.5 to 0.25 in all"]
    watched = tab("", source=run)
    titles = watched.locator("figure .title").all_inner_texts()
    assert titles == ["MLE prior", "RAL, step 150", "Real"]
    assert not np.array_equal(shown(watched, 0), shown(watched, 1))


TABS = {
    "watch": "seed=3&step=20&overlay=scores", "complete": "rows=4",
    "compare": "", "play": "given=7",
}  # fmt: skip
READY = {
    "watch": ".candidates li", "complete": "body[data-completed]",
    "compare": "body[data-round]", "play": ".palette button",
}  # fmt: skip


@pytest.mark.parametrize("name", TABS)
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_every_tab_fits_and_has_no_serious_fault(tab, name, width, scheme):
    size = {"width": width, "height": 844}
    page = tab(f"tab={name}&{TABS[name]}", READY[name], viewport=size, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", ground)[0])
    assert red < 60 if scheme == "dark" else red > 200
    if not AXE.is_file():
        pytest.skip("the page fits; axe-core is not here (AXE=.../axe.min.js) to look further")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in serious]
