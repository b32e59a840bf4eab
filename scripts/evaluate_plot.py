"""Quality against seconds: LIFT's versions as dots, what needs no training as lines. In: a Summary. Out: an SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluate_columns import LIFT, PLAIN
from evaluate_report import Summary

SHOWN = {"nll": "NLL per gold-answer token (lower is better)", "contained": "answers contained, share"}


def plot(found: Summary, path: Path) -> None:
    """The same figures give the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "lift"
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axes, (metric, title) in zip(both, SHOWN.items(), strict=True):
        _lines(axes, found, metric)
        _dots(axes, found, metric)
        axes.set(title=title, xlabel="seconds to the version", xlim=(0, None))
        if axes.has_data():
            axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _lines(axes: Any, found: Summary, metric: str) -> None:
    for number, name in enumerate(PLAIN):
        if name in found.columns and (one := found.columns[name].metrics.get(metric)):
            axes.axhline(one.value, linestyle="--", color=f"C{number}", label=name)
            axes.axhspan(one.low, one.high, color=f"C{number}", alpha=0.08)


def _dots(axes: Any, found: Summary, metric: str) -> None:
    trained = [(name, column) for name, column in found.columns.items() if "seconds" in column.spent]
    for number, (name, column) in enumerate(trained, start=len(PLAIN)):
        if one := column.metrics.get(metric):
            low, high = max(0.0, one.value - one.low), max(0.0, one.high - one.value)
            marker = "o" if name.startswith(LIFT) else "s"
            look = {"fmt": marker, "color": f"C{number}", "capsize": 3, "label": name}
            axes.errorbar(column.spent["seconds"], one.value, [[low], [high]], **look)
