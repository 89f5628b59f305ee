"""Headless Chromium for tests of pages: its console, and what a page asks of anybody."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1400,1000",
)  # fmt: skip


@contextmanager
def chromium(profile: Path):
    """A driver of Debian's chromium with an empty profile. Skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium with its driver here")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver, env={"SE_OFFLINE": "true", "PATH": "/usr/bin:/bin", "HOME": str(profile)})
    opened = webdriver.Chrome(options, service)
    try:
        yield opened
    finally:
        opened.quit()


class Shown:
    """A page that is open."""

    def __init__(self, driver, path: Path) -> None:
        self.driver = driver
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get(path.as_uri())
        self.settle()

    def settle(self) -> None:
        """Waits until what was asked for is drawn: observers and what they draw anew run between frames."""
        frames = "done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(), 30)))"
        self.driver.execute_async_script(frames)

    def run(self, script: str, *arguments):
        """What a script gives."""
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """The texts of elements."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector)

    def click(self, selector: str) -> None:
        """A click on the first such element."""
        self.driver.find_element("css selector", selector).click()
        self.settle()

    def type(self, selector: str, *keys: str) -> None:
        """Keys pressed in the first such element, or in the one that has the focus."""
        element = self.driver.find_element("css selector", selector) if selector else self.driver.switch_to.active_element
        element.send_keys(*keys)
        self.settle()

    def search(self, text: str) -> str:
        """What the page says was found."""
        self.run("query = document.getElementById('query'); query.value = arguments[0]; query.dispatchEvent(new Event('input'))", text)
        done = "done = arguments[0]; setTimeout(() => done(document.getElementById('found').textContent), 120)"
        return self.driver.execute_async_script(done)

    @property
    def errors(self) -> list[str]:
        """What stands in the console, and what was fetched."""
        logged = [entry["message"] for entry in self.driver.get_log("browser")]
        return logged + self.run("return performance.getEntriesByType('resource').map(each => each.name)")
