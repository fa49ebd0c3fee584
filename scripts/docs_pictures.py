"""Draw the pictures of the documentation: `python scripts/docs_pictures.py` writes docs/pictures/*.svg.

SVG is written as text, so that the same code gives the same bytes everywhere, and a test can compare
the files with it. Each picture has a light ground of its own and is readable on a dark page as well.
"""

import math
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "docs" / "pictures"

INK, GRAY, GROUND = "#1f2430", "#6b7280", "#fafafa"
BLUE, ORANGE, GREEN, RED = "#2563eb", "#d97706", "#15803d", "#b91c1c"
PALE = {BLUE: "#dbeafe", ORANGE: "#fef3c7", GREEN: "#dcfce7", RED: "#fee2e2", GRAY: "#e5e7eb"}

Point = tuple[float, float]


class Picture:
    """Elements of one SVG file, in drawing order; lengths are pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.elements: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 14,
        color: str = INK,
        at: str = "middle",
    ) -> None:
        """One line around (or from, or up to) x, its middle at the height y."""
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{at}" '
            f'dominant-baseline="central">{escape(words)}</text>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, words: str = "", color: str = GRAY
    ) -> None:
        """A rounded box with a line of text in its middle."""
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{PALE[color]}" stroke="{color}" stroke-width="1.5"/>'
        )
        if words:
            self.text(x + width / 2, y + height / 2, words)

    def line(
        self,
        points: Sequence[Point],
        color: str = INK,
        *,
        dashed: bool = False,
        arrow: bool = False,
    ) -> None:
        """A line through the points, with a head at the last one if `arrow`."""
        path = " ".join(f"{x:.6g},{y:.6g}" for x, y in points)
        style = ' stroke-dasharray="5 4"' if dashed else ""
        self.elements.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"{style}/>'
        )
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            length = math.hypot(x - x0, y - y0)
            u, v = (x - x0) / length, (y - y0) / length
            corners = ((x, y), (x - 9 * u - 4 * v, y - 9 * v + 4 * u))
            corners += ((x - 9 * u + 4 * v, y - 9 * v - 4 * u),)
            path = " ".join(f"{a:.6g},{b:.6g}" for a, b in corners)
            self.elements.append(f'<polygon points="{path}" fill="{color}"/>')

    def arrow(self, *points: Point, color: str = INK, dashed: bool = False) -> None:
        """A line that ends in a head."""
        self.line(points, color, dashed=dashed, arrow=True)

    def circle(self, x: float, y: float, words: str, color: str = GRAY) -> None:
        """A small circle with a sign in it."""
        self.elements.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="14" fill="{PALE[color]}" stroke="{color}" '
            'stroke-width="1.5"/>'
        )
        self.text(x, y, words, size=16)

    def svg(self) -> str:
        """The file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" '
            'font-family="system-ui, Helvetica, Arial, sans-serif">'
        )
        ground = f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{GROUND}"/>'
        return "\n".join(
            [head, f"<title>{escape(self.title)}</title>", ground, *self.elements, "</svg>", ""]
        )


def admin() -> Picture:
    """One sublayer with omega, and what is left of a stack's input after n sublayers."""
    picture = Picture(760, 330, "ADMIN: a factor on every shortcut")
    picture.text(175, 28, "one sublayer", size=15)
    picture.text(175, 300, "xᵢ₋₁")
    picture.line([(175, 288), (175, 262)])
    picture.arrow((175, 262), (250, 262), (250, 222))
    picture.box(195, 178, 110, 44, "fᵢ, dropout", BLUE)
    picture.arrow((250, 178), (250, 130), (190, 130))
    picture.arrow((175, 262), (100, 262), (100, 214))
    picture.circle(100, 200, "×", ORANGE)
    picture.text(78, 200, "ωᵢ", color=ORANGE, at="end")
    picture.arrow((100, 186), (100, 130), (160, 130))
    picture.circle(175, 130, "+")
    picture.arrow((175, 116), (175, 98))
    picture.box(120, 64, 110, 34, "LayerNorm", GREEN)
    picture.arrow((175, 64), (175, 44))
    left, right, top, bottom = 450.0, 690.0, 62.0, 262.0
    picture.text(555, 28, "share of the input's variance left after n sublayers", size=14)
    deepest, lowest = 120, -36.0

    def place(n: int, share_log10: float) -> Point:
        return left + (right - left) * n / deepest, top + (bottom - top) * share_log10 / lowest

    for exponent in (0, -12, -24, -36):
        _, y = place(0, exponent)
        picture.line([(left, y), (right, y)], PALE[GRAY])
        picture.text(left - 8, y, f"1e{exponent}" if exponent else "1", size=12, at="end")
    for n in (0, 40, 80, 120):
        picture.text(place(n, 0)[0], bottom + 16, str(n), size=12)
    picture.text((left + right) / 2, bottom + 36, "n (120: an encoder of 60 layers)", size=12)
    steps = range(0, deepest + 1, 2)
    picture.line([place(n, -n * math.log10(2)) for n in steps], RED)
    picture.line([place(n, -math.log10(n + 1)) for n in steps], BLUE)
    picture.text(place(60, 0)[0], place(0, -4.6)[1], "ADMIN: 1 / (n + 1)", color=BLUE)
    picture.text(place(44, 0)[0], place(0, -24)[1], "post-LN: 1 / 2^n", color=RED)
    return picture


def realformer() -> Picture:
    """Two layers of attention; the scores of the lower one enter the upper one."""
    picture = Picture(760, 300, "RealFormer: attention scores carried from layer to layer")
    for name, y in (("layer l", 185), ("layer l + 1", 60)):
        picture.text(20, y + 22, name, at="start", size=15)
        picture.box(120, y, 130, 44, "q kᵀ / √K", BLUE)
        picture.arrow((250, y + 22), (316, y + 22))
        picture.circle(330, y + 22, "+", ORANGE)
        picture.arrow((344, y + 22), (420, y + 22))
        picture.box(420, y, 110, 44, "softmax", GREEN)
        picture.arrow((530, y + 22), (580, y + 22))
        picture.box(580, y, 60, 44, "× v", BLUE)
        picture.arrow((640, y + 22), (690, y + 22))
    picture.text(725, 207, "output")
    picture.text(725, 82, "output")
    picture.arrow((380, 207), (380, 145), (330, 145), (330, 96), color=ORANGE)
    picture.text(395, 145, "Z(l): raw scores, without masks", color=ORANGE, at="start")
    picture.arrow((330, 285), (330, 221), color=ORANGE)
    picture.text(345, 270, "Z(l-1)", color=ORANGE, at="start")
    picture.arrow((380, 82), (380, 30), color=ORANGE)
    picture.text(395, 34, "Z(l+1), to the next layer", color=ORANGE, at="start")
    return picture


def r_drop() -> Picture:
    """One batch, two dropout masks, and what is added to the loss."""
    picture = Picture(760, 280, "R-Drop: two passes with different dropout, pulled together")
    picture.box(20, 112, 110, 56, "sentence pair", GRAY)
    for y, number in ((40, "1"), (190, "2")):
        picture.arrow((130, 140), (165, 140), (165, y + 25), (200, y + 25))
        picture.box(200, y, 170, 50, f"model, dropout mask {number}", BLUE)
        picture.arrow((370, y + 25), (420, y + 25))
        picture.box(420, y, 100, 50, f"p{number}(y | x)", GREEN)
        picture.arrow((520, y + 25), (585, y + 25))
        picture.text(592, y + 25, "- log p" + number + "(true word)", at="start")
    picture.text(285, 140, "the same weights", color=GRAY)
    picture.arrow((470, 125), (470, 90), color=ORANGE)
    picture.arrow((470, 155), (470, 190), color=ORANGE)
    picture.text(485, 140, "alpha × (KL(p1||p2) + KL(p2||p1)) / 2", color=ORANGE, at="start")
    return picture


def head_pruning() -> Picture:
    """Attention as a sum over heads; a head that goes takes rows and columns with it."""
    picture = Picture(760, 300, "Head pruning: a head, and the rows and columns that belong to it")
    rows = ("head 1", "head 2", "head 3", "head 4")
    picture.text(115, 28, "rows of q, k, v")
    picture.text(310, 28, "attention")
    picture.text(450, 28, "gate")
    picture.text(590, 28, "columns of the output")
    for index, name in enumerate(rows):
        y, gone = 50 + 56 * index, index == 2
        color = RED if gone else BLUE
        picture.box(45, y, 140, 40, "removed" if gone else f"K rows of {name}", color)
        picture.line([(185, y + 20), (255, y + 20)], dashed=gone)
        picture.box(255, y, 110, 40, name, color)
        picture.line([(365, y + 20), (436, y + 20)], dashed=gone)
        picture.circle(450, y + 20, "ξ", ORANGE)
        picture.line([(464, y + 20), (510, y + 20)], dashed=gone)
        picture.box(510, y, 160, 40, "removed" if gone else f"K columns of {name}", color)
        picture.line([(670, y + 20), (700, y + 20), (700, 154)], dashed=gone)
    picture.circle(700, 154, "+")
    picture.arrow((714, 154), (752, 154))
    picture.text(380, 282, "importance of a head: mean of |dL / dξ|, ξ = 1")
    return picture


def packages() -> dict[str, list[str]]:
    """Folder of the package -> folders that it may import, from the table in CONTRIBUTING.md."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = {}
    for name, below in re.findall(r"^\| `admin_nmt/(\w+)` \|[^|]*\|([^|]*)\|$", text, re.M):
        found[name] = re.findall(r"`(\w+)`", below)
    return found


def _middle(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def package_diagram() -> Picture:
    """The folders of the package, each above those that it imports."""
    below = packages()
    everything = [name for name in below if name != "cli"]

    def floor(name: str) -> int:
        return 1 + max(map(floor, below[name]), default=-1)

    floors: dict[int, list[str]] = {}
    for name in everything:
        floors.setdefault(floor(name), []).append(name)
    top = max(floors) + 1
    step, height = 92, 40
    picture = Picture(900, 100 + step * (top + 1), "admin_nmt: each folder above those it imports")
    # Without lines to folders that another folder on the way leads to.
    drawn = {
        name: [other for other in below[name] if not any(other in below[b] for b in below[name])]
        for name in everything
    }
    places: dict[str, Point] = {}
    width = 124.0
    for level, names in sorted(floors.items()):
        # In the order of what they stand on, so that few lines cross.
        names.sort(key=lambda name: (_middle([places[other][0] for other in drawn[name]]), name))
        gap = 900 / len(names)
        for index, name in enumerate(names):
            # Every other floor is moved aside, so that lines pass between boxes.
            shift = 24 if level % 2 else -24
            places[name] = (gap * (index + 0.5) + shift, 50 + step * (top - level))
    for name in everything:
        x, y = places[name]
        for other in drawn[name]:
            a, b = places[other]
            picture.arrow((x, y + height / 2), (a, b - height / 2), color=GRAY)
    colors = (GREEN, BLUE, ORANGE, RED)
    for name, (x, y) in places.items():
        picture.box(x - width / 2, y - height / 2, width, height, name, colors[floor(name) % 4])
    picture.box(40, 50 - height / 2, 820, height, "cli: parses arguments, imports all below", GRAY)
    bottom = 50 + step * (top + 1) - 30
    picture.box(
        40,
        bottom,
        820,
        height,
        "errors, files, installed, json_files, lazy, option_names, outputs, progress, programs: imported by all",
        GRAY,
    )
    return picture


#: File -> what draws it.
PICTURES: dict[str, Callable[[], Picture]] = {
    "admin.svg": admin,
    "realformer.svg": realformer,
    "r-drop.svg": r_drop,
    "head-pruning.svg": head_pruning,
    "packages.svg": package_diagram,
}


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw().svg(), encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
