"""A reader types into the page, in a real browser."""

import base64
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.serving import Shouting, served

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

#: Text that is markup, a blank line, two lines alike.
TYPED = "<img src=x onerror=alert(1)>\n\nein Hund\nein Hund"

#: Uses the page as a reader does, and leaves what it saw in an attribute.
PROBE = """<script>
addEventListener("load", async () => {
  const at = (id) => document.getElementById(id);
  const until = async (true_) => { while (!true_()) await new Promise((go) => setTimeout(go, 20)); };
  const type = (text, caret) => {
    at("source").value = text;
    at("source").setSelectionRange(caret, caret);
    at("source").dispatchEvent(new Event("input"));
  };
  const others = () => [...at("others").children].map((item) => item.textContent);
  await until(() => at("count").textContent);
  const seen = { title: at("title").textContent, focus: document.activeElement.id };
  const typed = TYPED;
  for (const end of [3, 10, 20]) type(typed.slice(0, end), end);  // without a pause
  type(typed, typed.length);
  await until(() => at("translation").textContent && !at("translation").matches(".old"));
  Object.assign(seen, {
    translation: at("translation").textContent, elements: at("translation").children.length,
    line: at("line").textContent, others: others(), speed: at("speed").textContent,
    count: at("count").textContent, images: document.images.length,
    overflow: document.documentElement.scrollWidth - innerWidth,
    colour: getComputedStyle(document.body).color,
  });
  type(typed + " und", typed.length);
  await until(() => !at("translation").matches(".old"));
  type("x".repeat(1001), 1);
  await until(() => at("error").textContent);
  seen.error = at("error").textContent;
  at("clear").click();
  await until(() => !at("translation").textContent);
  Object.assign(seen, { cleared: at("source").value, hidden: at("alternatives").hidden });
  document.body.dataset.seen = btoa(JSON.stringify(seen));
});
</script></body>""".replace("TYPED", json.dumps(TYPED).replace("<", "\\u003c"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize(
    ("width", "dark", "colour"), [(1300, 0, "rgb(228, 232, 236)"), (500, 1, "rgb(29, 35, 41)")]
)
def test_typing_translates(
    shouting: Shouting, tmp_path: Path, width: int, dark: int, colour: str
) -> None:
    assert CHROMIUM is not None
    page = (files("admin_nmt.serve") / "page.html").read_text(encoding="utf-8")
    with served(shouting, page=page.replace("</body>", PROBE)) as server:
        browser = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--timeout=20000",
             f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}",
             "--virtual-time-budget=10000", "--dump-dom", "--enable-logging=stderr",
             f"--blink-settings=preferredColorScheme={dark}", f"http://127.0.0.1:{server.port}/"],
            capture_output=True, text=True, timeout=600, check=True,
        )  # fmt: skip
    assert not re.findall(r".*CONSOLE.*", browser.stderr)
    found = re.search(r'data-seen="([^"]*)"', browser.stdout)
    assert found, browser.stdout[-3000:] + browser.stderr[-2000:]
    seen = json.loads(base64.b64decode(found[1]))
    assert (seen["title"], seen["focus"]) == ("German to English", "source")
    assert seen["translation"] == TYPED.upper() and seen["elements"] == seen["images"] == 0
    assert seen["line"] == "Other translations of line 4"
    assert seen["others"] == ["EIN HUND2", "EIN HUND3", "EIN HUND4"]
    assert re.fullmatch(r"5 words in \d+ ms: \d+ words/s", seen["speed"])
    assert seen["count"] == f"{len(TYPED)} of 1000 characters"
    assert seen["error"] == "Too long: 1001 of 1000 characters."
    assert (seen["cleared"], seen["hidden"]) == ("", True)
    assert seen["colour"] == colour and seen["overflow"] <= 0
    # One request for all that was typed without a pause, one for the line that changed.
    first, second = shouting.calls
    assert first == (4, ["<img src=x onerror=alert(1)>", "ein Hund"])
    assert second == (4, ["ein Hund und"])
