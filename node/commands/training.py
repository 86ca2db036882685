"""Subcommands: `falx train ct|mr`, `falx calibrate ct|mr`, `falx evaluate ct|mr|sites|readers`, `falx deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from node.config import Settings
    from node.local_studies import LocalStudies
    from node.model_evaluation import Run

train_app = typer.Typer(help="Train a model on local data.", no_args_is_help=True)
calibrate_app = typer.Typer(help="Fit a model's probability and thresholds to local data.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Evaluate a model against labels.", no_args_is_help=True)

StudiesOption = Annotated[Path, typer.Option("--studies", help="folder of DICOM files, any names, any depth")]
LabelsOption = Annotated[list[Path], typer.Option("--labels", help="label file(s); see docs/labels.md")]
JsonOption = Annotated[str, typer.Option("--json", help="write JSON to this file; - is standard output")]
ConfigOption = Annotated[Path | None, typer.Option("-c", "--config", help="models and series rules; default: shipped")]


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``; other groups add theirs to ``train_app`` and ``evaluate_app``."""
    app.add_typer(train_app, name="train")
    app.add_typer(calibrate_app, name="calibrate")
    app.add_typer(evaluate_app, name="evaluate")
    app.command("deploy")(deploy)
    for modality, what in (("ct", "haemorrhage on head CT"), ("mr", "abnormality on T2 head MRI")):
        train_app.command(modality, help=f"Train the model of {what} on local studies.")(_train_command(modality))
        calibrate_app.command(modality, help=f"Calibrate the model of {what} on local studies; its weights stay.")(
            _calibrate_command(modality)
        )
        evaluate_app.command(modality, help=f"Evaluate the model of {what} on local studies.")(
            _evaluate_command(modality)
        )
    evaluate_app.command("readers")(readers)
    evaluate_app.command("sites")(sites)


def _train_command(modality: str) -> Any:
    def train(
        studies: StudiesOption,
        labels: LabelsOption,
        out: Annotated[
            Path, typer.Option("--out", help="model folder to write; keeps prepared studies and checkpoint")
        ],
        resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run stopped")] = False,
        start: Annotated[str, typer.Option(help="model folder to start from; shipped, or none")] = "shipped",
        epochs: Annotated[int, typer.Option(min=1)] = 20,
        seed: Annotated[int, typer.Option(min=0, help="decides the split and the order")] = 0,
        version: Annotated[str, typer.Option("--model-version", help="version the model will call itself")] = "local-1",
        json: JsonOption = "",
        config: ConfigOption = None,
    ) -> None:
        from inference.weights import shipped
        from node.local_studies import PURPOSES
        from node.model_training import TrainingOptions, prepare
        from node.model_training import train as run_training
        from node.output import console, progress, write_json

        text = console(json)
        _, local = _open(studies, labels, modality, config, text)
        purpose = PURPOSES[modality][0]
        parent = None if start == "none" else shipped(purpose) if start == "shipped" else Path(start)
        options = TrainingOptions(out=out, seed=seed, epochs=epochs, start=parent, resume=resume, version=version)
        with progress() as bar:
            task = bar.add_task("preparing studies", total=len(local.studies))
            parts = prepare(local, modality, options, lambda: bar.advance(task))
        metadata = run_training(parts, modality, purpose, options)
        measured: Any = metadata.training["validation"]
        text.print(
            f"model {metadata.sha256[:12]} in {out}, validated on {measured['studies']} studies of other patients"
        )
        text.print(
            "RESEARCH USE ONLY. `falx evaluate` and `falx deploy` come next; the test patients were not looked at."
        )
        if json:
            document = {"model_sha256": metadata.sha256, "folder": str(out), "training": metadata.training}
            write_json(document | {"test_studies": list(parts.test_studies)}, json)

    return train


def _calibrate_command(modality: str) -> Any:
    def calibrate(
        studies: StudiesOption,
        labels: LabelsOption,
        out: Annotated[Path, typer.Option("--out", help="model folder to write")],
        model: Annotated[Path | None, typer.Option(help="model folder; default: the one the node would use")] = None,
        prevalence: Annotated[
            float | None, typer.Option(min=0.001, max=0.999, help="for the PPV of `alert`; default: the model's, 0.3")
        ] = None,
        version: Annotated[str, typer.Option("--model-version", help="version the model will call itself")] = "local-1",
        json: JsonOption = "",
        config: ConfigOption = None,
    ) -> None:
        from inference.training.recalibration import MIN_OF_EACH
        from node.local_studies import PURPOSES
        from node.model_calibration import calibrate as calibrated
        from node.model_folders import model_folder
        from node.output import console, write_json

        text = console(json)
        settings, local = _open(studies, labels, modality, config, text)
        local.need(2 * MIN_OF_EACH)
        parent = model or model_folder(settings, PURPOSES[modality][0])
        run = _run(local, modality, settings, parent, "", baselines=False)
        metadata = calibrated(run, parent, out, version=version, prevalence=prevalence)
        record: Any = metadata.training["recalibration"]
        before, after = record["mean_probability_before"], record["mean_probability"]
        share = record["positive"] / record["studies"]
        text.print(f"model {metadata.sha256[:12]} in {out}, calibrated on {record['studies']} studies")
        text.print(
            f"mean probability {before:.2f} before, {after:.2f} now; {share:.2f} of the studies are positive. On them:"
        )
        for name, point in metadata.operating_points.items():
            rates = ", ".join(f"{k} {point.measured[k]:.2f}" for k in ("sensitivity", "specificity", "ppv"))
            text.print(f"  {name}: p >= {point.threshold:.3f}: {rates} (PPV at {point.measured['prevalence']:.2f})")
        text.print("RESEARCH USE ONLY. `falx evaluate --model` on other patients and `falx deploy` come next.")
        if json:
            points = {n: dict(p.measured) | {"threshold": p.threshold} for n, p in metadata.operating_points.items()}
            write_json({"model_sha256": metadata.sha256, "folder": str(out), "operating_points": points} | record, json)

    return calibrate


def _evaluate_command(modality: str) -> Any:
    def evaluate(
        studies: StudiesOption,
        labels: LabelsOption,
        json: JsonOption = "",
        model: Annotated[Path | None, typer.Option(help="model folder; default: the one the node would use")] = None,
        operating_point: Annotated[str, typer.Option(help="default: the model's default")] = "",
        prevalence: Annotated[float | None, typer.Option(min=0, max=1, help="also give the PPV at this one")] = None,
        plots: Annotated[Path | None, typer.Option(help="folder for the calibration curve")] = None,
        cases: Annotated[Path | None, typer.Option(help="write every case here, for `falx evaluate sites`")] = None,
        reader_study: Annotated[Path | None, typer.Option(help="draw a blinded reader study into this folder")] = None,
        readers_draw: Annotated[int, typer.Option(min=2, help="cases of the reader study")] = 100,
        baselines: Annotated[bool, typer.Option(help="also score what needs no learning")] = True,
        config: ConfigOption = None,
    ) -> None:
        from node.model_evaluation import plot_calibration, report, save_cases
        from node.output import console, write_json
        from node.reader_export import export

        text = console(json)
        settings, local = _open(studies, labels, modality, config, text)
        local.need(2)
        run = _run(local, modality, settings, model, operating_point, baselines=baselines)
        document = report(run, local, modality, prevalence)
        _summary(document, text)
        if plots:
            plots.mkdir(parents=True, exist_ok=True)
            plot_calibration(document, plots / f"calibration-{modality}.png")
        if cases:
            save_cases(run, cases)
        if reader_study:
            export(run, local, reader_study, count=readers_draw)
        if json:
            write_json(document, json)

    return evaluate


def sites(
    first: Annotated[Path, typer.Argument(help="cases of one site, from `falx evaluate ... --cases`")],
    second: Annotated[Path, typer.Argument(help="cases of the other")],
    json: JsonOption = "",
) -> None:
    """Difference of AUC between two sites or scanners, with its interval (paired when they show the same patients)."""
    from inference.training.evaluation import delta_auc
    from node.model_evaluation import load_cases
    from node.output import console, write_json

    found = delta_auc(load_cases(first), load_cases(second))
    console(json).print(found)
    if json:
        write_json(found, json)


def readers(
    key: Annotated[Path, typer.Argument(help="key.csv of the reader study")],
    sheets: Annotated[list[Path], typer.Argument(help="filled sheets, one a reader")],
    json: JsonOption = "",
) -> None:
    """Score filled sheets of a reader study: figures, seconds, and McNemar's test against the model."""
    from inference.training.reader_study import SheetError, score
    from node.errors import Misconfigured
    from node.output import console, write_json

    try:
        found = score(key, sheets)
    except (SheetError, OSError) as error:
        raise Misconfigured(str(error)) from error
    console(json).print(found)
    if json:
        write_json(found, json)


def deploy(
    model: Annotated[str, typer.Argument(help="model folder; with --rollback the purpose, when there are two")] = "",
    studies: Annotated[Path | None, typer.Option(help="test studies; locked at the first deployment")] = None,
    labels: Annotated[list[Path] | None, typer.Option(help="their label file(s)")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="the model before serves again")] = False,
    json: JsonOption = "",
    config: Annotated[Path, typer.Option("-c", "--config")] = Path("config.yaml"),
) -> None:
    """Install a model, if it is no worse than the current one on the site's locked test set."""
    from node.config import load
    from node.deployment import deploy_model, roll_back, which_deployed
    from node.errors import Misconfigured
    from node.output import console, write_json

    settings = load(config)
    text = console(json)
    if rollback:
        purpose = which_deployed(settings.storage.folder, model)
        folder = roll_back(settings.storage.folder, purpose)
        text.print(f"{purpose}: {folder} serves again; the workers take it up")
        if json:
            write_json({"rolled_back": purpose, "folder": str(folder)}, json)
        return
    if not model:
        raise Misconfigured("give the model folder to deploy, or --rollback")
    document = deploy_model(settings, Path(model), studies, labels or [])
    done = "deployed; the workers take it up between two studies" if document["accepted"] else "refused"
    text.print(f"{done}: {document['why']}")
    if json:
        write_json(document, json)
    if not document["accepted"]:
        raise typer.Exit(1)


def _settings(config: Path | None) -> Settings:
    from node.config import Settings, load

    return load(config) if config else Settings()


def _open(
    studies: Path, labels: list[Path], modality: str, config: Path | None, text: Any
) -> tuple[Settings, LocalStudies]:
    """The settings, and the labelled studies that can be used; says which those are."""
    from node.local_studies import find_studies
    from node.output import progress

    settings = _settings(config)
    with progress() as bar:
        task = bar.add_task("reading headers", total=None)
        local = find_studies(studies, labels, modality, settings.models, lambda _: bar.advance(task))
    _tell(local, text)
    return settings, local


def _tell(local: LocalStudies, text: Any) -> None:
    """Say what will be used, what not, and which columns mean nothing."""
    text.print(f"{len(local.studies)} studies with labels; {len(local.unused)} without or unsuitable")
    counts: dict[str, int] = {}
    for _, reason in local.unused:
        counts[reason.code] = counts.get(reason.code, 0) + 1
    for code, count in sorted(counts.items()):
        text.print(f"  {count} {code}")
    if local.ignored_columns:
        text.print(f"columns ignored: {', '.join(local.ignored_columns)}")


def _run(
    local: LocalStudies, modality: str, settings: Settings, model: Path | None, point: str, *, baselines: bool
) -> Run:
    from node.local_studies import PURPOSES
    from node.model_evaluation import load_one, run_model
    from node.output import progress

    engine = load_one(settings, PURPOSES[modality][0], model, point)
    with progress() as bar:
        task = bar.add_task("analysing", total=len(local.studies))
        return run_model(local, modality, engine, baselines=baselines, on_study=lambda: bar.advance(task))


def _summary(document: dict[str, Any], text: Any) -> None:
    from rich.table import Table

    table = Table("figure", "value", "95 % interval")
    for name in ("auc", "sensitivity", "specificity", "ppv", "f1", "slice_auc", "pointing_hit_rate"):
        interval = document.get(f"{name}_ci")
        shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        table.add_row(name, f"{document[name]:.3f}", shown)
    for name, values in document["baseline"].items():
        table.add_row(f"baseline {name}: auc", f"{values['auc']:.3f}", "{:.3f} to {:.3f}".format(*values["auc_ci"]))
    text.print(table)
    text.print(
        f"{document['n']} studies, {document['positives']} positive, {document['undetermined']} undetermined, "
        f"at {document['operating_point']} ({document['threshold']:.3f}). {document['note']}"
    )
