"""Subcommands: `falx triage simulate` and `falx triage site`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from node.exam_table import ExamTable

triage_app = typer.Typer(help="What the model's order of reading would change: the reporting queue replayed.")


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.add_typer(triage_app, name="triage")


@triage_app.command()
def simulate(
    exams: Annotated[
        Path, typer.Option(help="CSV or Parquet: accession, acquired, reported, label, probability, category")
    ],
    json: Annotated[str, typer.Option("--json", help="write JSON to this file; - is standard output")] = "",
    plots: Annotated[Path | None, typer.Option(help="folder for the plots (PNG)")] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="YAML of exams read by weekday and hour; default: as reported")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="below it an abnormal exam counts as missed")] = 0.5,
    levels: Annotated[
        str, typer.Option(help="thresholds of classes of urgency, such as 0.5,0.9; default: continuous")
    ] = "",
    max_wait_days: Annotated[
        float, typer.Option(min=0, help="the model arm reads older exams first; 0: no such rule")
    ] = 0,
    warm_up_days: Annotated[float, typer.Option(min=0, help="until then exams are read as they were")] = 30,
    draws: Annotated[int, typer.Option(min=1, help="random orders")] = 1000,
    seed: Annotated[int, typer.Option(help="of the random orders and intervals")] = 1,
) -> None:
    """Replay a site's own exams: historical, first in first out, random, model, oracle."""
    from inference.triage import Protocol, switch_on
    from inference.triage_summary import simulate as replay_all
    from node.errors import Rejected
    from node.exam_table import read_exams
    from node.output import console, progress, write_json

    table = read_exams(exams)
    protocol = Protocol(
        threshold=threshold,
        random_draws=draws,
        seed=seed,
        levels=_levels(levels),
        max_wait_days=max_wait_days or float("inf"),
    )
    slots_h = _slots(table, schedule)
    waiting, slots_h = switch_on(table.exams, slots_h, warm_up_days, as_reported=schedule is None)
    if not len(waiting) or not len(slots_h):
        raise Rejected("nothing_left", f"{exams}: nothing is left to read after --warm-up-days {warm_up_days:g}")
    with progress() as bar:
        task = bar.add_task("replaying", total=draws + 3)
        result = replay_all(waiting, slots_h, protocol, lambda _: bar.advance(task))
    result = {**result, "left_out": table.left_out, "warnings": _warnings(result)}
    if json:
        write_json(result, json)
    if plots:
        from inference.triage_plots import draw

        draw(result, plots)
    _show(result, console(json))


@triage_app.command()
def site(
    out: Annotated[Path, typer.Option(help="write the exam table to this CSV file")],
    name: Annotated[str, typer.Option(help="site in the parameter file")] = "hospital_a",
    parameters: Annotated[Path | None, typer.Option(help="YAML of sites; default: the two shipped ones")] = None,
    seed: Annotated[int, typer.Option(help="same seed, same exams")] = 1,
) -> None:
    """Generate a site's exams with known truth, for planning and tests."""
    import inference
    from inference.triage_site import generate
    from node.errors import Rejected
    from node.exam_table import read_sites, write_exams
    from node.output import console

    source = parameters or Path(inference.__file__).with_name("triage_sites.yaml")
    sites = read_sites(source)
    if name not in sites:
        raise Rejected("unknown_site", f"{source} has no site {name}; it has {', '.join(sites)}")
    exams = generate(sites[name], seed)
    write_exams(exams, out)
    console().print(f"{len(exams)} exams of {name}, seed {seed}: {out}")


def _levels(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise typer.BadParameter("--levels wants numbers such as 0.5,0.9") from None
    if list(values) != sorted(set(values)) or any(not 0 < v < 1 for v in values):
        raise typer.BadParameter("--levels must ascend between 0 and 1")
    return values


def _slots(table: ExamTable, schedule: Path | None) -> Any:
    from inference.triage import slots_from_history, slots_from_schedule
    from node.errors import Rejected
    from node.exam_table import read_schedule

    if schedule is not None:
        hours = int(table.exams.acquired_h[-1]) + 1
        return slots_from_schedule(read_schedule(schedule), table.start_weekday_hour, hours)
    slots_h = slots_from_history(table.exams)
    if len(slots_h) == 0:
        raise Rejected("no_reports", "no exam was ever reported, so the capacity is unknown: give --schedule")
    return slots_h


def _warnings(result: dict[str, Any]) -> list[str]:
    groups = result["arms"]["fifo"]
    labelled = groups["abnormal"]["n"] + groups["normal"]["n"]
    found = []
    if result["auc"] == 1.0 and labelled >= 30:
        found.append("labels and probabilities agree perfectly: were the labels made from the probabilities?")
    if labelled < result["exams"]:
        found.append(f"{result['exams'] - labelled} exams have no label: they wait in the queue but are in no class")
    return found


def _show(result: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    def cell(group: dict[str, Any]) -> str:
        if not group["n"]:
            return "-"
        return f"{group['mean_days']:.1f} ({group['ci'][0]:.1f} to {group['ci'][1]:.1f})"

    table = Table(title=f"Mean days to report, 95 % interval; {result['exams']} exams, AUC {_auc(result)}")
    for heading in ("order", "all", "abnormal", "normal", "missed abnormal", "unread"):
        table.add_column(heading)
    for arm, groups in result["arms"].items():
        cells = [cell(groups[name]) for name in ("all", "abnormal", "normal", "missed_abnormal")]
        table.add_row(arm, *cells, str(groups["unread"]))
    console.print(table)
    for text in result["warnings"]:
        console.print(f"Warning: {text}")
    for reason, count in result["left_out"].items():
        console.print(f"Left out: {count} lines, {reason.replace('_', ' ')}")
    console.print("RESEARCH USE ONLY.")


def _auc(result: dict[str, Any]) -> str:
    return "unknown" if result["auc"] is None else f"{result['auc']:.3f}"
