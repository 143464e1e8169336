"""Draw the packages of motes, their rooms and their imports, as docs/images/house.svg."""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, PICTURE = ROOT / "src" / "motes", ROOT / "docs" / "images" / "house.svg"
SIGNS = {
    "core": {"resampling": "the resampling step"},
    "language": {"rules": "a decoding rule", "generation": "the weight of a token"},
    "diffusion": {"sampling": "the weight of a guided step"},
    "kernels": {"": "a Markov kernel, a file each"},
    "laws": {"": "prior × likelihood"},
}
"""What readers look for, and in which room of which package it is."""
WIDTH, LINE, GAP, PAD = 980, 15, 34, 8


def floors() -> list[list[str]]:
    """The packages of each floor, the highest first, as the import contract has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [[p for p in (name.strip() for name in layer.split("|")) if p != "__main__"] for layer in layers]


def imports() -> dict[str, set[str]]:
    """The packages that each package imports, anywhere in its files."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).parts
        if len(parts) == 1:
            continue
        mine = found.setdefault(parts[0], set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("motes."):
                mine.add(node.module.split(".")[1])
            if isinstance(node, ast.Import):
                mine |= {a.name.split(".")[1] for a in node.names if a.name.startswith("motes.")}
        mine.discard(parts[0])
    return found


def direct(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others: no package between the two imports the one and is by the other."""

    def reach(name: str) -> set[str]:
        return {far for near in graph.get(name, ()) for far in {near, *reach(near)}}

    return sorted((a, b) for a, near in graph.items() for b in near if not any(b in reach(c) for c in near - {b}))


def rooms(package: str) -> list[str]:
    """The packages in a package."""
    return sorted(p.parent.name for p in (SOURCE / package).glob("*/__init__.py"))


def drawn() -> str:
    """The picture, as SVG."""
    boxes: dict[str, tuple[float, float, float, float]] = {}
    shapes, y = [], 10.0
    for floor in floors():
        floor = [p for p in floor if (SOURCE / p).is_dir()]
        if not floor:
            continue
        share = [max(2.0, len(rooms(p)) ** 0.5) for p in floor]
        room = WIDTH - 20 - 16 * (len(floor) - 1)
        x, height = 10.0, 0.0
        for package, part in zip(floor, share, strict=True):
            width = room * part / sum(share)
            lines = _lines(package, width)
            height = max(height, 2 * PAD + LINE * (1 + len(lines)))
            boxes[package] = (x, y, width, 0.0)
            x += width + 16
        for package in floor:
            x, _, width, _ = boxes[package]
            boxes[package] = (x, y, width, height)
            shapes.append(
                f'<rect class="box" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5"/>'
            )
            shapes.append(f'<text class="name" x="{x + PAD:.0f}" y="{y + PAD + 11:.0f}">{package}/</text>')
            for k, line in enumerate(_lines(package, width)):
                sign = ' class="sign"' if line.startswith("→") else ""
                shapes.append(
                    f'<text{sign} x="{x + PAD:.0f}" y="{y + PAD + 11 + LINE * (k + 1):.0f}">{escape(line)}</text>'
                )
        y += height + GAP
    arrows = []
    for a, b in direct(imports()):
        (ax, ay, aw, ah), (bx, by, bw, _) = boxes[a], boxes[b]
        low, high = max(ax, bx) + 12, min(ax + aw, bx + bw) - 12
        start = (low + high) / 2 if low < high else ax + aw / 2
        end = start if low < high else bx + bw / 2
        arrows.append(
            f'<line x1="{start:.0f}" y1="{ay + ah:.0f}" x2="{end:.0f}" y2="{by - 5:.0f}" marker-end="url(#head)">'
            f"<title>{a} imports {b}</title></line>"
        )
    style = (
        "text{font:11px sans-serif;fill:#1d2330}.name{font-weight:700;font-size:13px}.sign{fill:#b3440e}"
        ".box{fill:#f3f5fb;stroke:#5b6b9a}line{stroke:#5b6b9a;stroke-width:1.3}"
    )
    head = (
        '<marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
        '<path d="M0,0 L6,3 L0,6 z" fill="#5b6b9a"/></marker>'
    )
    size = f'viewBox="0 0 {WIDTH} {y - GAP + 10:.0f}"'
    body = "\n".join([*arrows, *shapes])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="The packages and their imports">\n'
        f"<style>{style}</style>\n<defs>{head}</defs>\n"
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _lines(package: str, width: float) -> list[str]:
    """The rooms of a package in lines that fit, those that readers look for first."""
    signs = SIGNS.get(package, {})
    out = [f"→ {what}: {room + '/' if room else 'here'}" for room, what in signs.items()]
    line = ""
    for room in rooms(package):
        longer = f"{line} · {room}" if line else room
        if len(longer) * 6.0 > width - 2 * PAD and line:
            out.append(line)
            longer = room
        line = longer
    return [*out, line] if line else out


if __name__ == "__main__":
    PICTURE.write_text(drawn())
