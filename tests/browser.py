"""A browser without a window, for tests of pages: Debian's Chromium and its driver, where they are installed."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, LAPTOP = (360, 740), (1366, 768)


class Browser:
    """A browser that looks at one page after the other."""

    def __init__(self, program: str, driver: str) -> None:
        options = ChromeOptions()
        options.binary_location = program
        for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
            options.add_argument(argument)
        if os.geteuid() == 0:  # a superuser's Chromium refuses its sandbox
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.chrome = Chrome(options=options, service=Service(driver))  # a path, so that nothing is downloaded

    def open(self, page: Path, size: tuple[int, int] = LAPTOP) -> None:
        """Open a page from disk, in a window of this width and height."""
        for log in ("browser", "performance"):
            self.chrome.get_log(log)
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.chrome.get(page.as_uri())

    def ask(self, script: str) -> object:
        """Return what an expression of JavaScript is in the page."""
        return self.chrome.execute_script(f"return {script}")

    def all(self, selector: str) -> list[WebElement]:
        """Return the elements of a selector."""
        return self.chrome.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        """Return the first element of a selector."""
        return self.chrome.find_element("css selector", selector)

    def complaints(self) -> list[str]:
        """Return what the page has put on the console since it was opened."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        events = (json.loads(entry["message"])["message"] for entry in self.chrome.get_log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser for the whole session."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium and its driver here (Debian's packages chromium, chromium-driver)")
    browser = Browser(program, driver)
    try:
        yield browser
    finally:
        browser.chrome.quit()
