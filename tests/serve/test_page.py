"""The page in a real browser, against a service that keeps the contract: what readers can do."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_service import CSP, LARGEST_SEED, FakeService, dicom, png, serving
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SETTINGS: dict[str, Any] = {
    "locale": "en-GB",
    "viewport": {"width": 1000, "height": 700},
    "reduced_motion": "reduce",
}
SENTENCE = "Chest X-ray of a child with pneumonia"


@dataclass
class Visit:
    """A page, the service behind it, and what the browser complained about."""

    page: Page
    service: FakeService
    problems: list[str] = field(default_factory=list)
    expected: str = "nothing is expected"

    def open(self) -> Page:
        self.page.goto(self.service.url)
        expect(self.form.get_by_label("Model")).to_have_value("cxr-mini")
        return self.page

    def hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.problems.append(said.text)

    def generate(self, sentence: str = SENTENCE, n: int = 2) -> None:
        self.form.get_by_label("Describe a chest X-ray").fill(sentence)
        self.form.get_by_label("Number of images").fill(str(n))
        self.page.get_by_role("button", name="Generate").click()

    @property
    def form(self) -> Any:
        return self.page.locator("#text-to-cxr")

    @property
    def jobs(self) -> Any:
        return self.page.get_by_role("article")

    @property
    def status(self) -> Any:
        return self.page.locator(".status")

    @property
    def pictures(self) -> Any:
        return self.page.get_by_role("button", name=re.compile("^Synthetic chest X-ray"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: install Debian's chromium to test the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served() -> Iterator[FakeService]:
    with serving(FakeService()) as service:
        yield service


@pytest.fixture
def service(served: FakeService) -> FakeService:
    served.reset()
    return served


@pytest.fixture(scope="module")
def context(browser: Browser, served: FakeService) -> Iterator[BrowserContext]:
    """Shared, since a new one costs a second; pages share nothing in it."""
    with browser.new_context(**SETTINGS) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
        yield context


@pytest.fixture
def visit(context: BrowserContext, service: FakeService) -> Iterator[Visit]:
    with visiting(context, service) as visit:
        yield visit


@pytest.fixture
def timed_visit(browser: Browser, service: FakeService) -> Iterator[Visit]:
    """A visit that may set the clock, which all pages of a context share."""
    with browser.new_context(**SETTINGS) as context, visiting(context, service) as visit:
        yield visit


@contextmanager
def visiting(context: BrowserContext, service: FakeService) -> Iterator[Visit]:
    """A visit that ends with an error if the console had one, such as a breach of the CSP."""
    visit = Visit(context.new_page(), service)
    visit.page.on("console", visit.hear)
    visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
    yield visit
    visit.page.close()
    assert [each for each in visit.problems if not re.search(visit.expected, each)] == []


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for what only the service can see."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the service never saw it"
        page.evaluate("new Promise(requestAnimationFrame)")


def finished_job(service: FakeService, **spec: Any) -> str:
    """Put a finished job into the service; its id."""
    job = service.create({"prompt": SENTENCE, **spec})
    for item in job.items:
        service.complete(job, item)
    job.finish("succeeded")
    return job.id


def open_tissue(visit: Visit) -> Any:
    """The form of large images."""
    visit.open()
    visit.page.get_by_role("tab", name="Large tissue").click()
    form = visit.page.get_by_role("form", name="Large images of tissue")
    expect(form.get_by_label("Describe the tissue")).to_be_visible()
    return form


def open_maps(visit: Visit) -> Any:
    """The form of anomaly maps."""
    visit.open()
    visit.page.get_by_role("tab", name="Anomaly map").click()
    form = visit.page.get_by_role("form", name="Anomaly maps of chest X-rays")
    expect(form.get_by_label("Chest X-ray")).to_be_visible()
    return form


def test_a_picture_becomes_a_map_whose_layers_fade_by_the_keyboard(
    visit: Visit, tmp_path: Path
) -> None:
    visit.service.anomaly_rates = {"autopaint": (0.02, 0.5)}
    visit.service.hold_at = 10
    (tmp_path / "chest.png").write_bytes(png(3))
    form = open_maps(visit)
    page = visit.page
    form.get_by_role("button", name="Map").click()  # nothing is chosen yet
    expect(form.get_by_label("Chest X-ray")).to_be_focused()
    form.get_by_label("Chest X-ray").set_input_files(tmp_path / "chest.png")
    rates = form.get_by_label("False alarms")
    expect(rates).to_have_value("0.05")
    assert rates.locator("option").all_text_contents()[0] == "2 % of healthy pictures"
    rates.select_option("0.1")
    form.get_by_role("button", name="Map").click()
    expect(page.get_by_text("step 9 of 27")).to_be_visible()
    visit.service.release()
    expect(visit.status).to_have_text("Finished")
    sent = visit.service.sent
    assert [base64.b64decode(each) for each in sent["images"]] == [png(3)]
    assert (sent["method"], sent["threshold_fpr"]) == ("autopaint", 0.1)
    assert "threshold" not in sent
    expect(page.locator(".tile figcaption")).to_have_text("Score 0.031, 2 regions above 0.025")

    page.get_by_role("button", name="Anomaly map 1").click()
    dialog = page.get_by_role("dialog", name="Image 1 of 1")
    shown = dialog.get_by_role("img", name="Anomaly map. Score 0.031, 2 regions above 0.025")
    expect(shown).to_be_visible()
    expect(dialog).to_contain_text("A real picture, and a synthetic one of it without disease.")
    expect(dialog.get_by_text("Synthetic image of no patient")).to_be_hidden()
    layers = shown.locator("img")
    for number in range(3):
        expect(layers.nth(number)).to_have_js_property("naturalWidth", 64)
    healthy, mapped = (dialog.get_by_role("slider", name=name) for name in ("Healthy", "Map"))
    expect(layers.nth(1)).to_have_css("opacity", "0")
    healthy.focus()
    page.keyboard.press("End")
    expect(layers.nth(1)).to_have_css("opacity", "1")
    expect(healthy).to_have_attribute("aria-valuetext", re.compile("healthy, synthetic"))
    page.keyboard.press("ArrowLeft")
    expect(layers.nth(1)).to_have_css("opacity", "0.95")
    mapped.focus()
    page.keyboard.press("Home")
    expect(layers.nth(2)).to_have_css("opacity", "0")
    boxes = shown.locator("rect")
    expect(boxes).to_have_count(2)
    expect(boxes.first).to_have_attribute("width", "20")
    dialog.get_by_label("Boxes").focus()
    page.keyboard.press("Space")
    expect(boxes.first).to_be_hidden()
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Map (NumPy)").click()
    assert download.value.suggested_filename == "job-0-0-map.npy"
    with page.expect_download() as download:
        dialog.get_by_role("link", name="All files (ZIP)").click()
    assert download.value.suggested_filename == "job-0-0.zip"
    expect(dialog.get_by_role("link", name="Download PNG")).to_be_hidden()
    dialog.get_by_role("button", name="Use these settings").click()
    expect(rates).to_have_value("0.1")
    expect(form.get_by_label("Seed")).to_have_value("5")
    expect(page.locator(".overlay")).to_be_empty()


def test_a_model_that_is_not_calibrated_is_given_a_threshold(visit: Visit, tmp_path: Path) -> None:
    visit.service.anomaly_rates = {"autopaint": (0.02, 0.5)}
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(1))
    form = open_maps(visit)
    form.get_by_label("Method").select_option("thor")
    expect(form.get_by_label("False alarms")).to_be_hidden()
    form.get_by_label("Chest X-ray").set_input_files([tmp_path / "a.png", tmp_path / "b.png"])
    form.get_by_role("button", name="Map").click()
    expect(form.get_by_label("Threshold")).to_be_focused()
    form.get_by_label("Threshold").fill("0.2")
    form.get_by_role("button", name="Map").click()
    expect(visit.status).to_have_text("Finished")
    assert (visit.service.sent["method"], visit.service.sent["threshold"]) == ("thor", 0.2)
    assert "threshold_fpr" not in visit.service.sent
    expect(visit.page.get_by_role("heading", name="Anomaly maps of 2 pictures")).to_be_visible()
    expect(visit.page.locator(".tile figcaption")).to_have_count(2)


def test_words_become_a_large_image_to_move_about_in(visit: Visit) -> None:
    visit.service.hold_at = 10
    form = open_tissue(visit)
    page = visit.page
    form.get_by_role("button", name="stroma").click()
    form.get_by_role("button", name="1024 \u00d7 1024").click()
    form.get_by_label("Height").fill("700")
    form.get_by_role("button", name="Draw").click()
    expect(page.get_by_text("window 9 of 25")).to_be_visible()
    preview = page.get_by_role("img", name="Preview of image 1")
    expect(preview).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    visit.service.release()
    expect(visit.status).to_have_text("Finished")
    assert (visit.service.sent["text"], visit.service.sent["model"]) == ("stroma", "histo-tiny")
    assert (visit.service.sent["width"], visit.service.sent["height"]) == (1024, 700)
    assert not {"like", "variation", "seed"} & set(visit.service.sent)

    page.get_by_role("button", name="Synthetic image of tissue 1: stroma").click()
    dialog = page.get_by_role("dialog", name="Image 1 of 1")
    expect(dialog.get_by_role("img", name="Synthetic image of tissue: stroma")).to_be_visible()
    wait_until(page, lambda: any(level for level, _, _ in visit.service.tiles))
    dialog.get_by_role("button", name="One pixel a pixel").click()
    expect(dialog.get_by_text("100 %, 0.50 \u00b5m a pixel")).to_be_visible()
    wait_until(page, lambda: any(level == 0 for level, _, _ in visit.service.tiles))
    assert all(0 <= column < 4 and 0 <= row < 3 for _, column, row in visit.service.tiles)
    expect(dialog.get_by_role("link", name="Download PNG")).to_be_hidden()
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Download OME-TIFF").click()
    assert download.value.suggested_filename == "job-0-0.ome.tif"
    page.keyboard.press("Escape")
    expect(page.locator(".slide")).to_be_empty()


def test_pictures_are_sent_in_base64_and_only_those_that_were_chosen(
    visit: Visit, tmp_path: Path
) -> None:
    for seed in (1, 2):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    form = open_tissue(visit)
    form.get_by_label("Describe the tissue").fill("not meant")
    form.get_by_label("The layout of a picture").check()
    form.get_by_role("button", name="Draw").click()  # nothing is chosen yet
    expect(form.get_by_label("Reference picture")).to_be_focused()
    form.get_by_label("Reference picture").set_input_files(tmp_path / "1.png")
    form.get_by_role("button", name="Draw").click()
    expect(visit.status).to_have_text("Finished")
    assert base64.b64decode(visit.service.sent["like"]) == png(1)
    assert not {"text", "variation", "source"} & set(visit.service.sent)
    expect(visit.page.get_by_role("heading", name="Laid out like a picture")).to_be_visible()

    form.get_by_label("Tissue such as in pictures").check()
    both = [tmp_path / "1.png", tmp_path / "2.png"]
    form.get_by_label("Pictures of tissue").set_input_files(both)
    form.get_by_role("button", name="Draw").click()
    expect(visit.status).to_have_text(["Finished"] * 2)
    assert [base64.b64decode(each) for each in visit.service.sent["variation"]] == [png(1), png(2)]
    assert "like" not in visit.service.sent


def test_too_many_or_too_heavy_pictures_are_not_sent(visit: Visit, tmp_path: Path) -> None:
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(5 * 2**20))
    (tmp_path / "a.png").write_bytes(png(1))
    form = open_tissue(visit)
    form.get_by_label("Tissue such as in pictures").check()
    pictures = form.get_by_label("Pictures of tissue")
    for files, words in (([heavy], "more than 4 MB"), ([tmp_path / "a.png"] * 5, "at most 4")):
        pictures.set_input_files(files)
        form.get_by_role("button", name="Draw").click()
        expect(pictures).to_have_accessible_description(re.compile(words))
    assert visit.service.jobs == {}


def test_the_settings_of_a_large_image_are_used_again(visit: Visit) -> None:
    job = visit.service.create_large(
        {"text": "stroma", "seed": 8, "width": 512, "method": "overlap"}
    )
    visit.service.complete(job, job.items[0])
    job.finish("succeeded")
    visit.open()
    visit.page.get_by_role("button", name="Use settings").click()
    form = visit.page.get_by_role("form", name="Large images of tissue")
    expect(form.get_by_label("Describe the tissue")).to_be_focused()
    expect(form.get_by_label("Seed")).to_have_value("8")
    expect(form.get_by_label("Width")).to_have_value("512")
    expect(form.get_by_label("Windows")).to_have_value("overlap")
    expect(visit.page.get_by_role("form", name="Chest X-rays from a sentence")).to_be_hidden()


def test_tabs_are_walked_by_arrows_and_kept_in_the_address(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("tab", name="Chest X-rays").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Large tissue")).to_be_focused()
    expect(page.get_by_label("Describe the tissue")).to_be_visible()
    assert page.url.endswith("#large-images")
    page.reload()
    expect(page.get_by_label("Describe the tissue")).to_be_visible()
    page.keyboard.press("Tab")


def test_a_sentence_becomes_images_with_previews_on_the_way(visit: Visit) -> None:
    visit.service.hold_at = 10
    page = visit.open()
    page.get_by_role("button", name="Normal chest X-ray of a young child").click()
    page.get_by_role("button", name="Generate").click()

    preview = page.get_by_role("img", name="Preview of image 4")
    expect(preview).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    expect(page.get_by_text("step 9 of 25")).to_have_count(4)
    bar = page.get_by_role("progressbar", name="Progress of the job")
    expect(bar).to_have_js_property("value", 9 / 25)
    expect(visit.status).to_have_text("Running")

    visit.service.release()
    expect(visit.status).to_have_text("Finished")
    expect(visit.pictures).to_have_count(4)
    expect(page.locator(".tile img").first).to_have_attribute("src", re.compile("^/v1/results/"))
    expect(page.locator(".tile img").first).to_have_js_property("naturalWidth", 64)
    expect(bar).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text(re.compile("^Finished: 4 images"))
    spec = visit.service.jobs["job-0"].spec
    assert spec["prompt"] == "Normal chest X-ray of a young child"
    assert spec["previews"] is True
    assert (spec["n"], spec["num_inference_steps"], spec["guidance_scale"]) == (4, 25, 1.5)
    assert (spec["seed"], spec["height"], spec["model"]) == (None, None, "cxr-mini")


def test_the_notice_stays_in_view_and_nothing_foreign_is_loaded(visit: Visit) -> None:
    for _ in range(3):
        finished_job(visit.service, n=16)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    answer = visit.page.goto(visit.service.url)
    assert answer is not None
    assert answer.headers["content-security-policy"] == CSP
    expect(visit.pictures.first).to_be_visible()
    visit.page.mouse.wheel(0, 3000)
    notice = visit.page.get_by_text("Synthetic images of no patient. Not for diagnosis.")
    expect(notice).to_be_in_viewport()
    expect(visit.page.get_by_role("link", name="API reference")).to_have_attribute("href", "/docs")
    assert [url for url in asked if not url.startswith((visit.service.url, "data:"))] == []


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.open()
    keyboard = page.keyboard
    keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the images")).to_be_focused()
    keyboard.press("Tab")  # the link to the reference
    keyboard.press("Tab")  # the tab that is shown
    keyboard.press("Tab")
    expect(visit.form.get_by_label("Describe a chest X-ray")).to_be_focused()
    keyboard.type(SENTENCE)
    for _ in range(6):  # examples, then the number of images
        keyboard.press("Tab")
    keyboard.type("1")
    keyboard.press("Tab")  # the options stay folded
    keyboard.press("Tab")
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    keyboard.press("Enter")
    expect(visit.status).to_have_text("Finished")
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    keyboard.press("Tab")  # the job's settings
    keyboard.press("Tab")
    expect(visit.pictures).to_be_focused()
    keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(visit.pictures).to_be_focused()


def test_control_enter_in_the_sentence_generates(visit: Visit) -> None:
    visit.open()
    visit.form.get_by_label("Describe a chest X-ray").fill(SENTENCE)
    visit.form.get_by_label("Describe a chest X-ray").press("Control+Enter")
    expect(visit.status).to_have_text("Finished")


def test_a_running_job_can_be_cancelled(visit: Visit) -> None:
    visit.service.hold_at = 3
    page = visit.open()
    visit.generate()
    expect(page.get_by_text("step 2 of 25")).to_have_count(2)
    page.get_by_role("button", name="Cancel").click()
    expect(visit.status).to_have_text("Cancelled")
    expect(page.get_by_text("cancelled", exact=True)).to_have_count(2)
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert visit.service.jobs["job-0"].status == "cancelled"


def test_a_failed_image_says_why_and_the_others_stay(visit: Visit) -> None:
    visit.service.failing = {1: "the decoder gave pixels that are not finite"}
    page = visit.open()
    visit.generate(n=3)
    expect(visit.status).to_have_text("Partly failed")
    expect(page.locator(".tile").nth(1)).to_contain_text("pixels that are not finite")
    expect(visit.pictures).to_have_count(2)
    expect(page.locator(".meta")).to_contain_text("2 of 3 images")


def test_a_refused_field_is_explained_beside_its_input(visit: Visit) -> None:
    visit.expected = "status of 422"
    visit.open()
    visit.form.locator("summary").click()
    width = visit.form.get_by_label("Width")
    width.fill("100")
    visit.form.locator("summary").click()
    visit.generate()
    expect(width).to_be_focused()  # the options are unfolded again
    expect(width).to_have_attribute("aria-invalid", "true")
    expect(width).to_have_accessible_description(
        "width is 100, but must be a multiple of 64; try 256"
    )
    width.fill("128")
    expect(width).not_to_have_attribute("aria-invalid", "true")
    expect(width).to_have_accessible_description("")


def test_what_the_browser_can_check_is_not_sent(visit: Visit) -> None:
    page = visit.open()
    visit.form.locator("summary").click()
    visit.form.get_by_label("Seed").fill("-1")
    visit.generate(sentence="", n=17)
    expect(visit.form.get_by_label("Describe a chest X-ray")).to_be_focused()
    for label in ("Describe a chest X-ray", "Number of images", "Seed"):
        expect(visit.form.get_by_label(label)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("A whole number of at least 0, or nothing")).to_be_visible()
    assert visit.service.jobs == {}


def test_a_full_queue_is_counted_down_and_tried_again(timed_visit: Visit) -> None:
    timed_visit.expected = "status of 429"
    timed_visit.service.retry_after = [90]
    timed_visit.page.clock.install()
    page = timed_visit.open()
    timed_visit.generate()
    timer = page.get_by_role("timer")
    expect(timer).to_have_text("Trying again in 1 min 30 s.")
    expect(page.get_by_role("alert")).to_have_text("the queue is full")
    page.clock.run_for(31_000)
    expect(timer).to_have_text(re.compile(r"Trying again in 5\d s\."))
    assert timed_visit.service.jobs == {}
    page.clock.run_for(60_000)
    expect(timed_visit.status).to_have_text("Finished")
    expect(timer).to_be_hidden()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_trying_again_can_be_stopped(visit: Visit) -> None:
    visit.expected = "status of 429"
    visit.service.retry_after = [3600]
    page = visit.open()
    visit.generate()
    expect(page.get_by_role("timer")).to_have_text("Trying again in 1 h 0 min.")
    page.get_by_role("button", name="Stop trying").click()
    expect(page.get_by_role("timer")).to_be_hidden()
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    visit.generate()
    expect(visit.status).to_have_text("Finished")


def test_a_key_is_asked_for_and_kept_in_the_tab_only(visit: Visit) -> None:
    visit.expected = "status of 401"
    visit.service.key = "mp_1_right"
    finished_job(visit.service)
    page = visit.page
    page.goto(visit.service.url)
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_contain_text("This service asks for a key")
    expect(dialog.get_by_label("Key")).to_be_focused()
    page.keyboard.type("mp_1_wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("did not accept this key")
    page.keyboard.type(" mp_1_right ")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(visit.jobs).to_have_count(1)
    visit.generate()
    expect(visit.status.first).to_have_text("Finished")
    assert page.evaluate("Object.values(sessionStorage)") == ["mp_1_right"]
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""

    page.reload()
    expect(visit.jobs).to_have_count(2)
    page.get_by_role("button", name="Forget API key").click()
    expect(visit.jobs).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0


def test_without_a_key_the_page_waits_for_one(visit: Visit) -> None:
    visit.expected = "status of 401"
    visit.service.key = "mp_1_right"
    page = visit.page
    page.goto(visit.service.url)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_text("a key is needed")
    page.get_by_role("button", name="Enter API key").click()
    dialog.get_by_label("Key").fill("mp_1_right")
    dialog.get_by_role("button", name="Use key").click()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    expect(visit.form.get_by_label("Model")).to_have_value("cxr-mini")


def test_who_has_no_key_is_not_asked_again_by_answers_that_come_late(visit: Visit) -> None:
    visit.expected = "status of 401"
    visit.service.key = "mp_1_right"
    page = visit.page
    held: list[Any] = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.goto(visit.service.url)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_have_text("a key is needed")
    assert held
    for route in held:
        with page.expect_response("**/v1/models"):
            route.continue_()
    page.wait_for_timeout(200)
    expect(dialog).to_be_hidden()


def test_a_running_job_is_picked_up_after_a_reload(visit: Visit) -> None:
    visit.service.hold_at = 8
    page = visit.open()
    visit.generate()
    expect(page.get_by_text("step 7 of 25")).to_have_count(2)
    page.reload()
    expect(page.get_by_text("step 7 of 25")).to_have_count(2)
    expect(page.get_by_role("img", name="Preview of image 2")).to_be_visible()
    visit.service.release()
    expect(visit.status).to_have_text("Finished")
    expect(visit.pictures).to_have_count(2)


def test_a_broken_stream_goes_on_where_it_broke(visit: Visit) -> None:
    visit.expected = "ERR_INCOMPLETE_CHUNKED_ENCODING"
    visit.service.break_after = 6
    visit.service.hold_at = 20
    page = visit.open()
    visit.generate()
    expect(page.get_by_text("step 19 of 25")).to_have_count(2)
    wait_until(page, lambda: visit.service.resumed_at == [0, 6])
    visit.service.release()
    expect(visit.status).to_have_text("Finished")


def test_streams_leave_connections_for_everything_else(visit: Visit) -> None:
    visit.service.hold_at = 4
    for i in range(3):
        body = {"task": "text-to-cxr", "spec": {"prompt": f"{SENTENCE}, {i}"}}
        httpx.post(f"{visit.service.url}/v1/jobs", json=body).raise_for_status()
    page = visit.open()
    expect(page.get_by_text("step 3 of 25")).to_have_count(3)  # one is polled
    assert visit.service.resumed_at == [0, 0]
    visit.service.release()
    expect(visit.pictures).to_have_count(3)
    expect(visit.status).to_have_text(["Finished"] * 3)


def test_an_image_is_shown_large_with_its_record(visit: Visit) -> None:
    finished_job(visit.service, n=3, seed=LARGEST_SEED - 3)
    page = visit.open()
    visit.pictures.nth(1).click()
    dialog = page.get_by_role("dialog", name="Image 2 of 3")
    expect(dialog.get_by_role("img")).to_have_js_property("naturalWidth", 64)
    expect(dialog).to_contain_text("Synthetic image of no patient. Not for diagnosis.")
    for value in (SENTENCE, str(LARGEST_SEED - 2), "dpm++", "ab" * 32, "medphantom 0.1.0"):
        expect(dialog.get_by_role("definition").filter(has_text=value)).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="Image 3 of 3")).to_be_visible()
    expect(page.get_by_role("button", name="Next image")).to_be_disabled()
    page.get_by_role("button", name="Previous image").click()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("dialog", name="Image 1 of 3")).to_be_visible()
    page.keyboard.press("ArrowRight")  # though the button that had the focus is off
    expect(page.get_by_role("dialog", name="Image 2 of 3")).to_be_visible()


def test_settings_are_used_again_with_the_exact_seed(visit: Visit) -> None:
    seed = LARGEST_SEED - 1
    spec = {"negative_prompt": "pacemaker", "num_inference_steps": 12, "guidance_scale": 2.25}
    finished_job(visit.service, n=2, seed=seed, scheduler="heun", width=128, height=192, **spec)
    page = visit.open()
    visit.pictures.nth(1).click()
    page.get_by_role("button", name="Use these settings").click()
    expect(visit.form.get_by_label("Describe a chest X-ray")).to_have_value(SENTENCE)
    expect(visit.form.get_by_label("Seed")).to_have_value(str(LARGEST_SEED))
    page.get_by_role("button", name="Generate").click()
    expect(visit.jobs).to_have_count(2)
    first, again = (job.spec for job in visit.service.jobs.values())
    assert again == {**first, "n": 1, "seed": LARGEST_SEED, "previews": True}


def test_a_model_that_is_calibrated_has_a_slider_of_rarity(visit: Visit) -> None:
    visit.service.minority_levels = {
        "boost_and_skip": (0.45, 0.953), "classifier": (0.3, 0.81), "prompt": (0.4, 0.5),
    }  # fmt: skip
    page = visit.open()
    slider = visit.form.get_by_label("How rare")
    expect(slider).to_have_attribute("max", "0.95")
    expect(slider).to_have_attribute("aria-valuetext", "As they come")
    slider.fill("0.9")
    expect(visit.form.get_by_text("Rarer than 90 % of real ones of the kind")).to_be_visible()
    visit.form.locator("summary").click()
    method = visit.form.get_by_label("Rare ones by")
    assert method.locator("option").all_text_contents() == ["Boosted noise", "A classifier"]
    method.select_option("classifier")  # which reaches less
    expect(visit.form.get_by_text("Rarer than 81 % of real ones of the kind")).to_be_visible()
    visit.generate()
    expect(visit.jobs).to_have_count(1)
    expect(visit.jobs.first).to_contain_text("rarer than 81 %")
    slider.fill("0.5")
    visit.jobs.first.get_by_role("button", name="Use settings").click()
    expect(slider).to_have_value("0.81")
    visit.generate()
    expect(visit.jobs).to_have_count(2)
    slider.fill("0.5")
    page.get_by_role("button", name="Generate").click()
    expect(visit.jobs).to_have_count(3)
    first, again, plain = (job.spec for job in visit.service.jobs.values())
    assert (first["minority"], first["minority_method"]) == (0.81, "classifier")
    assert (again["minority"], again["minority_method"]) == (0.81, "classifier")
    assert plain["minority"] is None


def test_other_models_have_no_slider_of_rarity(visit: Visit) -> None:
    visit.open()
    expect(visit.form.get_by_label("How rare")).to_be_hidden()
    visit.generate()
    expect(visit.jobs).to_have_count(1)
    (job,) = visit.service.jobs.values()
    assert job.spec["minority"] is None


def test_downloads_have_telling_names_and_the_right_bytes(visit: Visit, tmp_path: Path) -> None:
    job = finished_job(visit.service, n=2, seed=70)
    page = visit.open()
    visit.pictures.nth(1).click()
    for name, suffix, data in (("PNG", "png", png(71)), ("DICOM", "dcm", dicom(71))):
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Download {name}").click()
        assert download.value.suggested_filename == f"{job}-1.{suffix}"
        download.value.save_as(tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == data


def test_an_expired_link_is_renewed_before_it_is_followed(timed_visit: Visit) -> None:
    finished_job(timed_visit.service)
    page = timed_visit.open()
    timed_visit.pictures.click()
    link = page.get_by_role("link", name="Download PNG")
    old = link.get_attribute("href")
    page.clock.set_fixed_time(time.time() + 7200)
    timed_visit.service.link_s = 4 * 3600
    with page.expect_download() as download:
        link.click()
    assert download.value.url != f"{timed_visit.service.url}{old}"
    assert download.value.url == f"{timed_visit.service.url}{link.get_attribute('href')}"


def test_a_picture_whose_link_has_expired_is_loaded_anew(visit: Visit) -> None:
    visit.expected = "status of 403"
    finished_job(visit.service)
    visit.page.route("**/v1/results/**", lambda route: route.fulfill(status=403), times=1)
    with visit.page.expect_response("**/v1/results/**") as refused:
        visit.open()
    assert refused.value.status == 403
    expect(visit.page.locator(".tile img")).to_have_js_property("naturalWidth", 64)


def test_an_image_kept_as_dicom_is_shown_too(visit: Visit) -> None:
    finished_job(visit.service, format="dicom")
    visit.open()
    expect(visit.page.locator(".tile img")).to_have_js_property("naturalWidth", 64)


def test_the_record_is_copied_as_json(visit: Visit) -> None:
    job = finished_job(visit.service, seed=LARGEST_SEED)
    page = visit.open()
    visit.pictures.click()
    page.get_by_role("button", name="Copy record as JSON").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == visit.service.jobs[job].items[0]["record"]
    assert (
        hashlib.sha256(png(copied["seed"])).hexdigest() in page.get_by_role("dialog").inner_text()
    )


def test_older_jobs_come_page_by_page(visit: Visit) -> None:
    for i in range(12):
        finished_job(visit.service, prompt=f"{SENTENCE}, {i}")
    page = visit.open()
    expect(visit.jobs).to_have_count(10)
    page.get_by_role("button", name="Older").click()
    expect(visit.jobs).to_have_count(12)
    expect(visit.jobs.first).to_contain_text(f"{SENTENCE}, 11")
    expect(visit.jobs.last).to_contain_text(f"{SENTENCE}, 0")
    expect(page.get_by_role("button", name="Older")).to_be_hidden()


def test_a_large_job_shows_its_images_a_part_at_a_time(visit: Visit) -> None:
    finished_job(visit.service, prompt=[f"{SENTENCE}, {i}" for i in range(150)])
    page = visit.open()
    expect(visit.pictures).to_have_count(24)
    page.get_by_role("button", name="Show 24 more of 126").click()
    expect(visit.pictures).to_have_count(48)
    expect(visit.pictures.last).to_have_accessible_name(re.compile(f"{SENTENCE}, 47$"))


def test_markup_in_a_sentence_stays_text(visit: Visit) -> None:
    sentence = '<img src=x onerror="alert(1)"> <b>bold</b> $& "quoted"'
    visit.open()
    visit.generate(sentence, n=1)
    expect(visit.status).to_have_text("Finished")
    expect(visit.page.get_by_role("heading", level=3)).to_have_text(sentence)
    expect(visit.page.locator(".job b")).to_have_count(0)


def test_numbers_too_large_for_a_double_survive_the_page(visit: Visit) -> None:
    page = visit.open()
    text = (
        '{"seed":18446744073709551615,"p":"\\\\\\"seed\\":12345678901234567890","x":[1.5,-2e+30,7]}'
    )
    script = "text => import('/page/api.js').then(({parse, stringify}) => stringify(parse(text)))"
    assert json.loads(page.evaluate(script, text)) == json.loads(text)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390), ("light", 320)])
def test_the_page_fits_the_window(visit: Visit, scheme: Any, width: int) -> None:
    finished_job(visit.service, n=3, prompt="word" * 60)
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size({"width": width, "height": 700})
    page = visit.open()
    expect(visit.pictures).to_have_count(3)
    visit.form.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("tab", name="Large tissue").click()
    page.locator("#large-images summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("tab", name="Anomaly map").click()
    page.locator("#anomaly-maps summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    visit.pictures.first.click()
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= width
