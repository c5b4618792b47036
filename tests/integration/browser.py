"""A real browser for tests: Chromium by its driver. Without both a test is skipped, and says so.

What a page looked like is kept in `build/screenshots`.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
NEEDED = ("chromium", "chromedriver")
PHONE, DESK = (390, 844), (1280, 900)
TABS = 80  # no page of ours has more places to go to

# Every text whose contrast with what is behind it is too low to read, by WCAG's formula (AA: 4.5, large text 3).
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
  const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
const behind = (e) => { const all = [];
  for (; e; e = e.parentElement) all.push(rgba(getComputedStyle(e).backgroundColor));
  return all.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]); };
const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = (c) => { const f = c.slice(0, 3).map(v => linear(v / 255));
  return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
const found = [];
for (const e of document.querySelectorAll('.cohorts *')) {
  const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
  if (!text || !e.getClientRects().length || e.closest('svg') || e.tagName === 'OPTION') continue;
  const style = getComputedStyle(e), back = behind(e), ink = light(over(rgba(style.color), back)), paper = light(back);
  const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700;
  if (ratio < (large ? 3 : 4.5)) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return found;
"""


class Browser:
    """A window on Flower, with what a person does in it."""

    def __init__(self, driver: Chrome, url: str, user: str, password: str) -> None:
        self.driver, self.url = driver, url
        self._known = url.replace("http://", f"http://{user}:{password}@")
        self.go("/cohorts", known=True)

    def go(self, path: str, *, known: bool = False) -> None:
        self.driver.get((self._known if known else self.url) + path)

    @property
    def path(self) -> str:
        return self.driver.current_url.split("://", 1)[1].partition("/")[2].partition("?")[0]

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def click(self, words: str) -> None:
        """The link or button of these words; then the next page is there."""
        [found, *_] = [e for e in self.all("main a, main button") if e.text == words]
        self._press(found)

    def follow(self, css: str) -> None:
        """The same, of an element."""
        self._press(self.one(css))

    def _press(self, found: WebElement) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        self._leaves(found.click)

    def tab_to(self, words: str) -> None:
        """By the keyboard alone; where one is can be seen."""
        for _ in range(TABS):
            self.type(Keys.TAB)
            here = self.driver.switch_to.active_element
            if words in (here.text, here.get_attribute("id")):
                assert here.value_of_css_property("outline-style") != "none" or here.value_of_css_property(
                    "box-shadow"
                ) not in {"", "none"}
                return
        raise AssertionError(f"no way by the keyboard to {words!r} on {self.path}")

    def type(self, keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(keys)

    def enter(self) -> None:
        self._leaves(lambda: self.type(Keys.ENTER))

    def _leaves(self, act: Any) -> None:
        before = self.one("html")
        act()
        WebDriverWait(self.driver, 20).until(staleness_of(before))

    def theme(self, name: str) -> None:
        """By Flower's own button."""
        self.one("#theme-toggle").click()
        self.one(f'[data-bs-theme-value="{name}"]').click()
        assert self.one("html").get_attribute("data-bs-theme") == name

    def size(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < height},
        )

    def shoot(self, name: str, *, whole: bool = True) -> Path:
        """Keep what it looks like."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        given = {"captureBeyondViewport": True, "clip": clip} if whole else {}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", **given})
        place = SHOTS / f"{name}.png"
        place.write_bytes(base64.b64decode(taken["data"]))
        return place

    def faint(self) -> list[str]:
        found: list[str] = self.driver.execute_script(CONTRAST)
        return found

    def overflows(self) -> bool:
        return bool(
            self.driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth")
        )

    def hosts(self) -> set[str]:
        """Where the page and all that it loaded came from."""
        found = self.driver.execute_script(
            "return performance.getEntries().filter(e => e.name.includes('://')).map(e => new URL(e.name).origin)"
        )
        return set(found)


@contextmanager
def browsing(url: str, user: str, password: str) -> Iterator[Browser]:
    """A browser that is let in."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"no browser: install Debian's chromium and chromium-driver ({', '.join(missing)} missing)"
        )
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--lang=en",
        "--force-prefers-reduced-motion",
        f"--window-size={DESK[0]},{DESK[1]}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(executable_path=shutil.which("chromedriver")))
    try:
        browser = Browser(driver, url, user, password)
        browser.size(*DESK)
        yield browser
    finally:
        driver.quit()
