"""Training logs in small, and what a browser would see of a report."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


def write_log(path: Path, lr: float, updates: int = 20, arch: str = "tiny") -> None:
    """A log in fairseq's JSON format: losses that fall, a validation every 5 updates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "2026-11-27 11:15:25 | INFO | fairseq_cli.train | {'_name': None, 'model': Namespace("
        f"arch='{arch}', lr=[{lr}], dropout=0.1, _name='{arch}')}}"
    ]
    for update in range(1, updates + 1):
        stats = {"loss": 9 - update * lr, "ppl": 90.0, "gnorm": 2.0, "wps": 900, "wall": 3 * update}
        lines.append(json.dumps({k: str(v) for k, v in stats.items()} | {"num_updates": update}))
        if update % 5 == 0:
            lines.append(json.dumps({"valid_loss": "8", "valid_num_updates": str(update)}))
    path.write_text("\n".join(lines) + "\n")


class Page(HTMLParser):
    """Attributes that a browser would load from, texts of cells, and the embedded figures."""

    LOADS = ("src", "href", "srcset", "data", "action", "poster", "background")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.cells: list[tuple[str, dict[str, Any], str]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in self.LOADS]
        self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes = self._open[-1]
            {"script": self.scripts, "style": self.styles}.get(tag, []).append(data)
            if tag in ("th", "td", "button", "h2", "h3", "a"):
                self.cells.append((tag, attributes, data))

    def texts(self, tag: str) -> list[str]:
        return [text for found, _, text in self.cells if found == tag]

    def figures(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts[0])
