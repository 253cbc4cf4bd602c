"""The commands of training: `mmsr demo`, `fit`, `search`, `ablate` and `export`."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mmsr.cli.application import Config, Count, Number, Pairs, TableColumns, pairs
from mmsr.cli.console import live_table, must_be_there
from mmsr.cli.inference import format_answer
from mmsr.evaluation.report.names import TableFormat
from mmsr.extras import check_installed
from mmsr.files import check_output
from mmsr.progress import log, show_progress
from mmsr.records import Utterance

if TYPE_CHECKING:
    from mmsr.ablation.runner import Runner


def demo(
    *, out: str = "runs/demo", utterances: Count = 2400, seed: Number = 0, epochs: Count | None = None
) -> None:
    """Run the main experiment from end to end: make the corpus, train, evaluate, report, predict.

    Example: mmsr demo

    Args:
        out: Folder of the run. What is there already is used again.
        utterances: Size of the corpus.
        seed: Seed of the corpus and of the training.
        epochs: Number of epochs, instead of the configuration's.
    """
    from mmsr.evaluation.report.page import check_out
    from mmsr.files import folder_lock

    check_out(out, "metrics.json")
    from lightning.pytorch.utilities import rank_zero_only

    # on several devices, Lightning starts the command again for each but the first
    with folder_lock(out) if not getattr(rank_zero_only, "rank", 0) else nullcontext():
        _demo(Path(out), utterances=utterances, seed=seed, epochs=epochs)


def _demo(folder: Path, *, utterances: int, seed: int, epochs: int | None) -> None:
    from mmsr.data.corpora.demo.corpus import make_demo

    log(f"1/4 corpus: {utterances:,} utterances in five languages, by espeak-ng -> {folder / 'corpus'}")
    manifest = make_demo(folder / "corpus", utterances=utterances, seed=seed)
    import torch

    torch.set_num_threads(1)  # in a model this small more threads gain nothing, and wait for each other
    log(f"2/4 joint training on audio and transcript -> {folder / 'model'}")
    from mmsr.training.arguments import packaged_config

    args = ["-c", str(packaged_config("demo.yaml")), "--data.manifest", str(manifest)]
    args += ["--trainer.default_root_dir", str(folder), "--seed_everything", str(seed)]
    run_fit(args + ([] if epochs is None else ["--trainer.max_epochs", str(epochs)]))
    log(f"3/4 evaluation on new voices and sentences -> {folder / 'report.html'}")
    metrics = folder / "metrics.json"
    if metrics.exists() and metrics.stat().st_mtime >= (folder / "model").stat().st_mtime:
        log(f"{metrics} is there already and is used again")
        from mmsr.evaluation.report.run import conditions_table

        print(conditions_table(loads(metrics.read_text(encoding="utf-8"))))
    else:
        from mmsr.workflows.evaluation import evaluate_checkpoint
        from mmsr.workflows.settings import Rows

        bar = show_progress()
        evaluation = evaluate_checkpoint(folder / "model", Rows(manifest), folder, seed=seed, progress=bar)
        print(evaluation.table())
        log("\n".join([*evaluation.notes(), f"report: {evaluation.report}"]))
    log("4/4 three utterances of the test split")
    from mmsr.data.manifest import manifest as manifests
    from mmsr.inference.loading import load_pipeline

    rows = manifests.utterances(manifests.load_manifest(manifest, split="test"))
    pipe = load_pipeline(folder / "model")
    for kind in ("words", "voice", "conflict"):
        row = next(row for row in rows if row.kind == kind and row.language == "en")
        answer = pipe({"audio": row.audio, "text": row.text})
        print(f"\n{row.audio!s}\n  said ({kind}): {row.text}\n  true: {row.label} - {row.rationale}")
        print(format_answer(answer))
    log(f"open {folder / 'report.html'}")
    log(f"your own: mmsr predict FILE --text WORDS --model {folder / 'model'}")


def fit(*settings: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Train a model by a YAML file, whose settings can be given as flags too.

    Leaves checkpoints/, history.json and the best model as a Hugging Face folder model/ in
    trainer.default_root_dir. The same command continues an interrupted run from its last checkpoint, in a
    copy of the folder too. --replace_unfinished gives an unfinished run of other settings up. Of runs with
    --model.schedule constant and --model.warmup_steps, a greater --trainer.max_epochs makes the run longer;
    else --model.init_from D/model starts a new one from its weights.

    Example: mmsr fit -c experiments/demo.yaml --data.manifest my/manifest.csv --trainer.max_epochs 5

    The model: --model.preset, .audio, .text, .pretrained, .init_from, .decoder, .decoder_type, .fusion,
    .rationale_format, .labels, .text_prefix, .target_level, .vocab_size, .config. How its parts are
    trained: --model.freeze, .train_layers, .gradual_unfreezing, .lora, .attention, .gradient_checkpointing,
    .feature_store, .feature_dtype.
    The optimiser: --model.learning_rate, .encoder_learning_rate, .layer_decay, .weight_decay, .schedule,
    .warmup_ratio, .warmup_steps, .ema_decay. The losses: --model.class_weights, .label_smoothing,
    .uncertainty_weighting, .r_drop, .audio_dropout, .text_dropout, .objectives (contrastive,
    supervised_contrastive, auxiliary_heads, ogm_ge). For all: --seed_everything.

    Chosen by the training rows where they are `auto`: --model.rationale_format, --data.balance and, in
    --model.config, audio_window_seconds.

    Loggers instead of the CSV in logs/ (extra `loggers`): --trainer.logger TensorBoardLogger, or
    --trainer.logger WandbLogger with --trainer.logger.offline true, which uploads nothing; both with
    --trainer.logger.save_dir DIR. Several are a list in the YAML.

    All settings with their meaning: mmsr fit --help_all; the YAML of a run: mmsr fit -c FILE --print_config

    Args:
        settings: -c FILE, a YAML file; demo.yaml and own.yaml are found from anywhere. And settings over it,
            such as --data.manifest M, --model.learning_rate R, --trainer.default_root_dir D.
    """
    run_fit(["--help" if word == "--help_all" else word for word in settings])


def ablate(
    config: Config,
    *,
    jobs: int | None = None,
    out: str | None = None,
    dry_run: bool = False,
    ray: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    format: TableFormat = "md",
    table_columns: TableColumns = None,
) -> None:
    """Train variants of a configuration with several seeds, and compare them on the test rows.

    Writes results.json; table.md, table.csv and table.tex (booktabs, siunitx); report.html and report.md;
    plot.png and plot.pdf. Runs are named by their settings and data: finished ones are used again, and after
    an interruption the same command continues. With `unavailable: skip` in the file, variants whose weights
    or rows are not on this machine are left out, and named. The exit code is 1 if a run failed.

    Example: mmsr ablate -c experiments/ablations/fusions.yaml --jobs 2
    Example: mmsr ablate -c experiments/ablations/fusions.yaml --ray auto --gpus 0.25

    Args:
        config: YAML file with base, settings, grid, variants, seeds, folds, reference, unavailable,
            evaluation and out.
        jobs: Number of parallel runs, each a process with one thread: 1 by default, with --ray as many as
            fit.
        out: Folder for the results, instead of the file's.
        dry_run: Check the file, list its runs and exit.
        ray: Run on this Ray cluster (extra ray): auto, HOST:PORT, or local. Its machines must share the
            folders.
        cpus: Processors of a run, with --ray.
        gpus: GPUs of a run, with --ray; with a fraction, runs share one.
        format: Of the printed table.
        table_columns: Columns of the printed table by their headings, such as macro-F1; by
            default all, and of LaTeX those that a paper shows.
    """
    from mmsr.ablation.ablate import ablate as run_ablation
    from mmsr.ablation.availability import available, explained
    from mmsr.ablation.plan import plan
    from mmsr.ablation.report import table
    from mmsr.ablation.spec import read_ablation
    from mmsr.evaluation.report.page import check_out
    from mmsr.inference.loading import open_predictor
    from mmsr.training.arguments import packaged_config

    ablation = read_ablation(config, out=out, find=lambda name: packaged_config(Path(name).name))
    runner = _runner(ray, jobs=jobs, cpus=cpus, gpus=gpus)
    if dry_run:
        ablation, not_run = available(ablation)
        listed = {run.folder: run for run in itertools.chain.from_iterable(plan(ablation))}
        for run in listed.values():
            state = "to do" if run.result() is None else "finished"
            print(f"{run.folder}  {state}  {run.label}")
        for line in explained(not_run):
            print(line)
        return
    check_out(ablation.out, "results.json")
    with live_table(ablation.name) as show:
        results = run_ablation(ablation, open_model=open_predictor, runner=runner, show=show)
    printed = table(results, format, table_columns)
    print(f"{printed}\n{results['paragraph']}" if format == "md" else printed)
    log(f"{ablation.out / 'report.html'}; results.json, table.md, .tex and .csv, plot.png and .pdf beside it")
    for failed in results["failed"]:
        log(f"failed: {failed['run']} ({failed['settings']}): {failed['error']}")
    if results["failed"]:
        sys.exit(1)


def search(
    config: Config,
    *,
    trials: Count | None = None,
    minutes: float | None = None,
    confirm: Number | None = None,
    jobs: int | None = None,
    out: str | None = None,
    dry_run: bool = False,
    ray: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    format: TableFormat = "md",
    table_columns: TableColumns = None,
) -> None:
    """Search settings of `mmsr fit` for a better value on the development rows, by Optuna (extra search).

    Trial 0 is the configuration as it is. Each trial is a run in OUT/trials. Writes best.yaml, which `mmsr
    fit -c` accepts; search.json, search.csv, search.html and search.md; plot.png and plot.pdf. After an
    interruption the same command continues, and a higher --trials or --minutes adds trials. No test row is
    read, except by --confirm. Exit code 1 if no trial has a value.

    Example: mmsr search -c experiments/searches/demo.yaml --jobs 2
    Example: mmsr search -c experiments/searches/demo.yaml --confirm 5

    Args:
        config: YAML file with base, settings, space, trials, minutes, metric, sampler, pruner, seed, confirm,
            evaluation and out.
        trials: Number of trials, instead of the file's.
        minutes: Minutes after which no trial starts, instead of the file's.
        confirm: Train best settings and default with this many new seeds, and compare them on the test rows.
            Without a test split, half of the development rows is held back from the search.
        jobs: Number of parallel trials, each a process with one thread: 1 by default, with --ray as many as
            fit.
        out: Folder for the results, instead of the file's.
        dry_run: Check file and manifest, tell what would be done and exit.
        ray: Do the trials on this Ray cluster (extra ray): auto, HOST:PORT, or local. Its machines must share
            the folders.
        cpus: Processors of a trial, with --ray.
        gpus: GPUs of a trial, with --ray; with a fraction, trials share one.
        format: Of the printed table.
        table_columns: Columns of the printed table by their headings, such as macro-F1; by default all.
    """
    check_installed("mmsr search", "optuna")
    from mmsr.ablation.search.report import SHOWN, table
    from mmsr.ablation.search.search import outline
    from mmsr.ablation.search.search import search as run_search
    from mmsr.ablation.search.spec import read_search
    from mmsr.inference.loading import open_predictor
    from mmsr.training.arguments import packaged_config

    found = read_search(
        config,
        out=out,
        trials=trials,
        minutes=minutes,
        confirm=confirm,
        find=lambda name: packaged_config(Path(name).name),
    )
    runner = _runner(ray, jobs=jobs, cpus=cpus, gpus=gpus)
    if dry_run:
        print(outline(found))
        return
    check_output(found.out, folder=True, name="--out")
    with live_table(found.name) as show:
        results = run_search(found, open_model=open_predictor, runner=runner, show=show)
    if format == "md":
        print(f"{table(results, shown=SHOWN, columns=table_columns)}\n{results['paragraph']}")
    else:
        print(table(results, format, columns=table_columns))
    for trial in results["trials"]:
        if trial["state"] == "failed":
            log(f"failed: trial {trial['number']} ({trial['settings']}): {trial['reason']}")
    if results["best"] is None:
        log("no trial has a value")
        sys.exit(1)
    log(f"{found.out / 'search.html'}; search.json, .md and .csv, plot.png and .pdf beside it")
    log(f"the best settings: mmsr fit -c {found.out / 'best.yaml'}")
    if (results["confirmation"] or {}).get("failed"):
        sys.exit(1)


def _runner(ray: str | None, *, jobs: int | None, cpus: int, gpus: float) -> Runner:
    """The runner that the flags of `ablate` and `search` ask for."""
    from mmsr.ablation.ray import RayCluster
    from mmsr.ablation.runner import LocalProcesses

    if ray is not None:
        return RayCluster(ray, jobs=jobs, cpus=cpus, gpus=gpus)
    if (cpus, gpus) != (1, 0.0):
        raise ValueError(f"--cpus {cpus} --gpus {gpus:g} need --ray; accepted: with --ray ADDRESS")
    return LocalProcesses(1 if jobs is None else jobs)


def export(
    checkpoint: str | None = None,
    *,
    out: str,
    format: Literal["huggingface", "onnx"] = "huggingface",
    model: str | None = None,
    weights: Literal["float", "int8"] = "float",
    manifest: str | None = None,
    split: str = "test",
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    batch_size: Count = 32,
) -> None:
    """Turn a Lightning checkpoint or a model into a Hugging Face folder, or a model into ONNX graphs.

    `--weights int8` stores the weights of a folder in 8 bits, which is about a quarter of the size. They are
    floats again once they are loaded.

    `--format onnx` writes encoder.onnx (both encoders, fusion and head), decoder.onnx (one step, with its
    cache), and both with 8-bit weights (.int8.onnx). The graphs are compared with torch, and with --manifest
    their answers too, in agreement.json.

    Example: mmsr export runs/demo/checkpoints/last.ckpt --out my-model
    Example: mmsr export --model runs/demo/model --weights int8 --out my-small-model
    Example: mmsr export --format onnx --model runs/demo/model --out my-onnx

    Args:
        checkpoint: A .ckpt file of `mmsr fit`, for a Hugging Face folder.
        out: Folder to write.
        format: What to write.
        model: Folder or Hub id of a model, for ONNX or a Hugging Face folder; base and demo are packaged.
        weights: How a Hugging Face folder stores its weights.
        manifest: Table of utterances on which the graphs' answers are compared with torch's.
        split: Split of its rows.
        columns: Names that columns have in this manifest.
        label_map: Names that labels have in this manifest.
        batch_size: Number of rows in a batch.
    """
    if format == "onnx" and (model is None or checkpoint is not None):
        raise ValueError("--format onnx is made of a model; accepted: --model, and no other")
    if (checkpoint is None) == (model is None):
        raise ValueError(f"--format {format} is made of a checkpoint or a model; accepted: one of the two")
    if format == "onnx" and weights != "float":
        raise ValueError(f"--weights {weights} is of a Hugging Face folder; accepted: without --format onnx")
    if os.path.exists(out):
        raise ValueError(f"--out {out} exists already; accepted: a new folder")
    check_output(out, folder=True, name="--out")
    if manifest is not None:
        if format != "onnx":
            raise ValueError("--manifest measures ONNX graphs; accepted: with --format onnx")
        must_be_there(manifest=manifest)
    if format == "huggingface":
        _export_folder(checkpoint, model, Path(out), weights=weights)
        return
    from mmsr.data.loading.splits import select_rows
    from mmsr.data.manifest.manifest import load_manifest, utterances
    from mmsr.inference.loading import load_pipeline
    from mmsr.inference.onnx import export_pipeline

    assert model is not None
    pipe = load_pipeline(model, device="cpu")
    rows: list[Utterance] = []
    if manifest is not None:  # before the export, which takes longer than finding a fault in it
        table = load_manifest(manifest, labels=pipe.model.config.labels, columns=columns, label_map=label_map)
        rows = utterances(select_rows(table, split=split, required=["test"], source=manifest)["test"])
    differences, agreement = export_pipeline(pipe, out, rows=rows, batch_size=batch_size)
    for graph, difference in differences.items():
        whole, small = (Path(out, graph + end).stat().st_size / 1e6 for end in (".onnx", ".int8.onnx"))
        print(f"{graph}: largest difference from torch {difference:.1e}; {whole:.1f} MB, int8 {small:.1f} MB")
    for precision, kept in agreement.items():
        line = f"{precision}: labels of torch {kept['label']:.1%}, rationales {kept['rationale']:.1%}"
        if "accuracy" in kept:
            line += f", accuracy {kept['accuracy']:.3f} (torch {kept['accuracy_of_torch']:.3f})"
        print(f"{line}; {kept['n']:,} rows, {split}")
    log(f"{model} -> {out}")


def _export_folder(
    checkpoint: str | None, model: str | None, out: Path, *, weights: Literal["float", "int8"]
) -> None:
    """Write a Hugging Face folder of a Lightning checkpoint, or else of a model."""
    from mmsr.inference.loading import load_pipeline
    from mmsr.model.modeling import save_model

    if checkpoint is not None:
        from mmsr.training.module import load_lightning_checkpoint

        loaded, processor = load_lightning_checkpoint(checkpoint)
        save_model(loaded, processor, out, weights=weights)
        if loaded.config.retrieves:
            log(
                f"{checkpoint} has no memory of rationales, which a run fills at its end: {out} gives labels "
                "alone; accepted, for rationales: the folder model of the finished run"
            )
    else:
        assert model is not None
        pipe = load_pipeline(model, device="cpu")
        save_model(pipe.model, pipe.processor, out, weights=weights)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    log(f"{checkpoint or model} -> {out} (weights: {size / 1e6:.1f} MB)")


# ---------------------------------------------------------------------- helpers of the commands


def run_fit(args: Sequence[str]) -> None:
    """Train with LightningCLI's arguments.

    `--data.columns` and `--data.label_map` read NAME=VALUE.
    """
    given: list[str] = []
    words = list(args)
    while words:
        flag = words.pop(0)
        given.append(flag)
        if flag in ("--data.columns", "--data.label_map"):
            own = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
            words[: len(own)] = [dumps(pairs(own), ensure_ascii=False)]
    from mmsr.training.run import fit as train

    log(f"model: {train(given)}")
