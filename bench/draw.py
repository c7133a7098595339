#!/usr/bin/env python3
"""Draws goodput against offered load from what bench/serve --json printed: draw.py OUT.svg TITLE NAME=FILE.json ...

A solid line is the goodput by the 99th percentile of a request's gaps, a dotted one that by their mean; grey is all that was offered. Files of one name
are points of one curve: where several have the same rate, the line goes through their median and a bar spans them."""
import json
import math
import pathlib
import statistics
import sys
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 56, 16, 40, 48
COLOURS = ["#1769aa", "#c2410c", "#15803d", "#7e22ce"]


def step_for(most):
    """A round distance of marks that gives four to eight of them."""
    power = 10 ** math.floor(math.log10(most))
    return next(power * s for s in (0.1, 0.2, 0.5, 1, 2) if most / (power * s) <= 8)


def goodputs(points, field):
    return [p["all"][field] for p in points]


def draw(title, curves):
    """curves: (name, {rate: points measured at it})."""
    most = max(rate for _, points in curves for rate in points) * 1.05

    def x(value):
        return LEFT + value / most * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>']
    step = step_for(most)
    for i in range(int(most / step) + 1):
        value = i * step
        out += [f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#eee"/>',
                f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>',
                f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>']
    out += [f'<path d="M{x(0):.1f} {y(0):.1f}L{x(most):.1f} {y(most):.1f}" stroke="#bbb" stroke-dasharray="2 4"/>',
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">offered, requests a second</text>',
            f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">served within the level</text>']
    for i, (name, points) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        for field, dash in (("goodput", ""), ("goodput_by_mean", ' stroke-dasharray="1 4" stroke-linecap="round"')):
            line = "L".join(f"{x(rate):.1f} {y(statistics.median(goodputs(at, field))):.1f}" for rate, at in points.items())
            out.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for rate, at in points.items():
            values = goodputs(at, "goodput")
            out += [f'<path d="M{x(rate):.1f} {y(min(values)):.1f}V{y(max(values)):.1f}" stroke="{colour}"/>',
                    f'<circle cx="{x(rate):.1f}" cy="{y(statistics.median(values)):.1f}" r="3" fill="{colour}"/>']
        out.append(f'<text x="{LEFT + 12}" y="{TOP + 14 + 16 * i}" fill="{colour}">{escape(name)}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    if len(sys.argv) < 4 or any("=" not in word for word in sys.argv[3:]):
        sys.exit(__doc__)
    curves = {}
    for word in sys.argv[3:]:
        name, path = word.split("=", 1)
        for point in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["points"]:
            curves.setdefault(name, {}).setdefault(point["rate"], []).append(point)
    curves = [(name, dict(sorted(points.items()))) for name, points in curves.items()]
    pathlib.Path(sys.argv[1]).write_text(draw(sys.argv[2], curves), encoding="utf-8")


if __name__ == "__main__":
    main()
