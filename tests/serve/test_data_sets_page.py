"""The page's place for data sets, in a real browser against the real service."""

import csv
import os
import re
from pathlib import Path
from typing import Any

import pytest
from local_service import running
from playwright.sync_api import expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 300_000  # on a machine that does other things, too


def test_a_data_set_is_made_from_a_spec_and_its_report_opens(
    tiny_model: str, tmp_path: Path
) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: install Debian's chromium to test the page")
    (tmp_path / "lab").mkdir()
    with (tmp_path / "lab/prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "prompt"), ("a", "chest"), ("b", "chest"), ("c", "")])
    stores = {"lab": str(tmp_path / "lab")}
    with (
        running(tiny_model, tmp_path, stores=stores, lease_s=30) as service,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(locale="en-GB", viewport={"width": 1200, "height": 800})
        problems: list[Any] = []
        page.on("pageerror", lambda error: problems.append(error))
        page.goto(service.url)
        page.get_by_role("tab", name="Data sets").click()
        form = page.get_by_role("form", name="Data sets of a store")
        spec = form.get_by_label(re.compile("^Spec"))
        expect(spec).to_have_value(re.compile('"operation": "vary"'))
        form.get_by_role("button", name="From prompts").click()
        expect(spec).to_have_value(re.compile('"task": "generate"'))
        spec.fill("{")
        form.get_by_role("button", name="Start").click()
        expect(form.locator("#data-spec-error")).to_contain_text("This is no JSON")
        spec.fill('{"task": "generate", "manifest": {"path": "/etc/passwd"}}')
        form.get_by_role("button", name="Start").click()
        expect(form.locator("#data-spec-error")).to_contain_text("must name a data set")
        expect(spec).to_be_focused()
        spec.fill(
            '{"task": "generate", "manifest": {"path": "lab:prompts.csv"},'
            ' "params": {"num_inference_steps": 2}}'
        )
        form.get_by_role("button", name="Start").click()
        card = page.get_by_role("article", name="Images over lab:prompts.csv")
        expect(card.locator(".status")).to_have_text("Partly failed", timeout=WAIT_MS)
        expect(card).to_contain_text("the row has neither a prompt nor labels")
        with page.expect_download() as download:
            card.get_by_role("link", name="Download (WebDataset)").click()
        assert download.value.suggested_filename.endswith(".tar")
        with page.expect_popup() as opened:
            card.get_by_role("link", name="Report").click()
        expect(opened.value.get_by_role("heading", level=1)).to_contain_text("Report of job-")
        if shots := os.environ.get("SHOTS"):
            opened.value.screenshot(path=f"{shots}/report.png", full_page=True)
        opened.value.close()
        if shots := os.environ.get("SHOTS"):
            page.screenshot(path=f"{shots}/page.png")
        card.get_by_role("button", name=re.compile("^Synthetic image 1")).click()
        dialog = page.get_by_role("dialog", name="Image 1 of 3")
        expect(dialog).to_contain_text("Synthetic image of no patient")
        expect(dialog.get_by_role("button", name="Use these settings")).to_be_hidden()
        dialog.get_by_role("button", name="Close").click()
        spec.fill("{}")
        card.get_by_role("button", name="Use settings").click()
        expect(spec).to_have_value(re.compile("lab:prompts.csv"))
        browser.close()
        assert problems == []
