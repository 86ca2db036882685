"""Plots of a triage simulation, as PNG: delays by class, by category, against the threshold, and the random draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference.triage import ARMS

COLOURS = {
    "historical": "#7f7f7f",
    "fifo": "#4c78a8",
    "random": "#b0b0d8",
    "model": "#d1652f",
    "oracle": "#3a8f5c",
}
_CLASSES = ("abnormal", "normal", "missed_abnormal")
_FOOT = "Simulated order of reading. RESEARCH USE ONLY."


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw all plots of a simulation's JSON into ``folder`` and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"delay_by_class": _by_class, "threshold_sweep": _sweep}
    if result["arms"]["fifo"]["categories"]:
        plots["delay_by_category"] = _by_category
    files = []
    for name, plot in plots.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        plot(figure, result)
        figure.supxlabel(_FOOT, x=0.99, ha="right", fontsize=7, color="#555555")
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        files.append(path)
    return files


def _by_class(figure: Figure, result: dict[str, Any]) -> None:
    axes = figure.subplots()
    width = 0.8 / len(ARMS)
    for number, arm in enumerate(ARMS):
        groups = [result["arms"][arm][name] for name in _CLASSES]
        _bars(axes, [i + (number - 2) * width for i in range(len(groups))], groups, width, arm)
    counts = [result["arms"]["model"][name]["n"] for name in _CLASSES]
    labels = ["abnormal", "normal", "abnormal missed\nby the model"]
    axes.set_xticks(range(3), [f"{label}\nn = {n}" for label, n in zip(labels, counts, strict=True)])
    axes.set_ylabel("mean days to report")
    axes.set_title("Who waits how long (bars: mean, lines: 95 % interval)")
    _finish(axes)


def _by_category(figure: Figure, result: dict[str, Any]) -> None:
    axes = figure.subplots()
    names = list(result["arms"]["fifo"]["categories"])
    shown = ("fifo", "model", "oracle")
    width = 0.8 / len(shown)
    for number, arm in enumerate(shown):
        groups = [result["arms"][arm]["categories"][name] for name in names]
        _bars(axes, [i + (number - 1) * width for i in range(len(groups))], groups, width, arm)
    counts = [result["arms"]["fifo"]["categories"][name]["n"] for name in names]
    ticks = [f"{name.replace('_', ' ')} (n = {n})" for name, n in zip(names, counts, strict=True)]
    axes.set_xticks(range(len(names)), ticks, rotation=25, ha="right", fontsize=8)
    axes.set_ylabel("mean days to report")
    axes.set_title("Delay by category of abnormality")
    _finish(axes)


def _sweep(figure: Figure, result: dict[str, Any]) -> None:
    days, rates = figure.subplots(1, 2)
    rows = result["sweep"]
    thresholds = [row["threshold"] for row in rows]
    for key, label, colour in (
        ("abnormal_mean_days", "abnormal", COLOURS["model"]),
        ("normal_mean_days", "normal", COLOURS["fifo"]),
        ("missed_abnormal_mean_days", "abnormal, missed", "#8b1a1a"),
    ):
        days.plot(thresholds, [_number(row[key]) for row in rows], label=label, color=colour, marker=".", ms=4)
    days.set_ylabel("mean days to report")
    days.set_title("Two classes of urgency")
    for key, colour in (("sensitivity", COLOURS["model"]), ("specificity", COLOURS["fifo"]), ("flagged", "#7f7f7f")):
        rates.plot(thresholds, [_number(row[key]) for row in rows], label=key, color=colour, marker=".", ms=4)
    rates.set_title("What the threshold flags")
    rates.set_ylim(0, 1.02)
    for axes in (days, rates):
        axes.set_xlabel("threshold on the probability")
        axes.axvline(result["threshold"], color="#999999", lw=1, ls=":")
        _finish(axes)


def _bars(axes: Axes, x: list[float], groups: list[dict[str, Any]], width: float, arm: str) -> None:
    means = [group["mean_days"] or 0.0 for group in groups]
    below = [mean - (group["ci"][0] if group["n"] else mean) for mean, group in zip(means, groups, strict=True)]
    above = [(group["ci"][1] if group["n"] else mean) - mean for mean, group in zip(means, groups, strict=True)]
    errors = [[max(0.0, e) for e in below], [max(0.0, e) for e in above]]
    axes.bar(
        x, means, width * 0.92, label=arm, color=COLOURS[arm], yerr=errors, error_kw={"lw": 1, "ecolor": "#333333"}
    )


def _finish(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", lw=0.4, color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
