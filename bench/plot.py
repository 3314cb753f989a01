#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""plot.py RESULT... >doc/speed.svg: what bench_servers.py and bench_writing.py have printed, as bars.

A RESULT is such an output behind a first line that says on which machine it was made; bench/results has those that
the README shows.  A bar is a share of nbdkit's file plugin without a filter, the same image or a raw file.
"""

import html
import sys

# Measures of both programs: (name, which number of a row)
READING = (("copy out", 1), ("random 4 KiB reads", 6))
WRITING = (("copy in", 1), ("copy over", 3), ("random 4 KiB writes", 5))
CEILING = "nbdkit file"
COLORS = {"qluks": "#2563a8"}
OTHERS = "#b8bec6"

WIDTH, LABEL, BAR, GAP, UNIT = 860, 210, 12, 3, 170
SHARE_MAX = 1.25


def tables(lines):
    """(image, whether it is written, [(server, numbers)]) of each table."""
    for i, line in enumerate(lines):
        if "share" not in line or i == 0 or not lines[i - 1].strip():
            continue
        rows = []
        for row in lines[i + 1:]:
            words = row.replace("|", " ").split()
            first = next((n for n, word in enumerate(words) if word.replace(".", "").isdigit()), None)
            if first is None or row.startswith("  "):  # the end, or a remark
                break
            rows.append((" ".join(words[:first]), [float(w) if w != "nan" else 0.0 for w in words[first:]]))
        if rows:
            yield lines[i - 1].strip(), "in MB/s" in line, rows


def groups(paths):
    """(title, [(image, [(server, share)])]) for each measure of each result."""
    for path in paths:
        with open(path) as f:
            machine, *lines = f.read().splitlines()
        found = list(tables(lines))
        for measure, column in WRITING if any(written for _, written, _ in found) else READING:
            yield f"{measure}: {machine}", [(image, [(who, n[column]) for who, n in rows if who != CEILING])
                                            for image, _, rows in found if image != "raw"]


def draw(all_groups):
    body, y = [], 10

    def text(x, size, words, color="#222", anchor="start"):
        body.append(f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}">'
                    f'{html.escape(words)}</text>')

    for title, images in all_groups:
        y += 24
        text(10, 14, title)
        top = y + 6
        for image, bars in images:
            y += 8
            for n, (who, share) in enumerate(bars):
                y += BAR + GAP
                text(LABEL - 8, 11, f"{image}, {who}" if n == 0 else who, anchor="end")
                length = min(share, SHARE_MAX) * UNIT * 3
                body.append(f'<rect x="{LABEL}" y="{y - BAR + 2}" width="{length:.0f}" height="{BAR}"'
                            f' fill="{COLORS.get(who, OTHERS)}"/>')
                text(LABEL + length + 5, 11, f"{share:.2f}")
        x = LABEL + 3 * UNIT
        body.append(f'<path d="M{x} {top}V{y + 6}" stroke="#888" stroke-dasharray="3 3"/>')
        y += 12
    y += 20
    text(LABEL + 3 * UNIT, 11, "1.0: no filter", "#666", "middle")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" font-family="sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(draw(groups(sys.argv[1:])))
