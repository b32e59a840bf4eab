"""Charts and diagrams (SmartArt) of Office documents → lines: a chart's title and numbers, a diagram's words.

In: the element that stands for one in a slide or a page. Out: what its own part keeps of the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from xml.etree.ElementTree import Element

from lift_server.convert import rows
from lift_server.convert.archive import Archive, attribute, local
from lift_server.convert.package import targets

KINDS = ("chart", "relIds")  # elements of a graphicFrame: a chart, a diagram
NUMBERS = ("numRef", "numLit")
CATEGORIES, VALUES = ("cat", "xVal"), ("val", "yVal")
FIRST_CALENDAR, SECOND_CALENDAR = date(1899, 12, 30), date(1904, 1, 1)  # what a workbook's days count from
QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')  # of a number's format: what is written as it stands


def of_part(archive: Archive, name: str) -> Iterator[str]:
    """A block for each in a part, in its order."""
    parts = targets(archive, name)
    for one in archive.xml(name).iter():
        if local(one) in KINDS and (text := "\n".join(lines(archive, parts, one))):
            yield text


def lines(archive: Archive, parts: dict[str, str], element: Element) -> list[str]:
    is_chart = local(element) == "chart"
    part = parts.get(attribute(element, "id" if is_chart else "dm"), "")
    return list((_chart if is_chart else _diagram)(archive.xml(part)))


def _chart(root: Element) -> Iterator[str]:
    series = [one for one in root.iter() if local(one) == "ser"]
    first_day = SECOND_CALENDAR if _counts_from_1904(root) else FIRST_CALENDAR
    columns = [_points(one, VALUES, first_day) for one in series]
    labels: dict[int, str] = {}
    for one in series:
        labels = _points(one, CATEGORIES, first_day) | labels
    # Its own title: axes have some too.
    yield from (_words(one) for chart in root if local(chart) == "chart" for one in chart if local(one) == "title")
    header = ["", *(" ".join(_points(one, ("tx",), first_day).values()) for one in series)]
    for at in sorted({at for column in columns for at in column}):
        yield rows.line([labels.get(at, ""), *(column.get(at, "") for column in columns)], header)


def _counts_from_1904(root: Element) -> bool:
    return any(local(one) == "date1904" and (attribute(one, "val") or "1") in ("1", "true") for one in root)


def _points(series: Element, names: tuple[str, ...], first_day: date) -> dict[int, str]:
    """By their places. Of categories in several levels the innermost, which comes first."""
    found = next((one for one in series if local(one) in names), None)
    if found is None:
        return {}
    levels = [one for one in found.iter() if local(one) == "lvl"]
    source = levels[0] if levels else found
    points = [one for one in source.iter() if local(one) == "pt"]
    if not points:  # a name that is no reference
        return {0: text} if (text := _text(source, "v")) else {}
    if not any(local(one) in NUMBERS for one in found):
        return {int(attribute(one, "idx") or 0): _text(one, "v") for one in points}
    form = next((one.text or "" for one in found.iter() if local(one) == "formatCode"), "")
    return {
        int(attribute(one, "idx") or 0): _number(_text(one, "v"), attribute(one, "formatCode") or form, first_day)
        for one in points
    }


def _number(text: str, form: str, first_day: date) -> str:
    """As the chart shows it, as far as a reader minds: no digits of binary fractions, percents and days as such."""
    with suppress(ValueError, OverflowError):
        value, form = float(text), QUOTED.sub("", form).lower()
        if "%" in form:
            return f"{100 * value:.15g}%"
        if "y" in form or ("d" in form and "m" in form):
            return (first_day + timedelta(days=value)).isoformat()
        return f"{value:.15g}"
    return text


def _diagram(root: Element) -> Iterator[str]:
    """Its points' words; connections and presentation have none of their own."""
    for point in root.iter():
        if local(point) == "pt" and attribute(point, "type") in ("", "node", "asst") and (text := _words(point)):
            yield text


def _text(element: Element, name: str) -> str:
    return next((one.text or "" for one in element.iter() if local(one) == name), "").strip()


def _words(element: Element) -> str:
    return " ".join("".join(one.text or "" for one in element.iter() if local(one) == "t").split())
