"""The command `mmsr`: one dict of command -> function, whose signature is the command's flags.

Functions import what they need when they run, so that `mmsr --help` answers without torch. Bad input ends
with one line on stderr and exit code 2, an interruption with 130; nothing half-written stays.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from json import dumps, loads
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "dev", "test"]


def demo(out: str = "runs/demo", utterances: int = 2400, seed: int = 0, epochs: int | None = None) -> None:
    """The main job from end to end: make the corpus, train jointly, evaluate, report, predict.

    Example: mmsr demo

    Args:
        out: Folder of the run. What is there already is used again.
        utterances: Size of the corpus.
        seed: Of the corpus and of the training.
        epochs: Train for other than the configuration's number of epochs.
    """
    from mmsr.data.demo import make_demo

    folder = Path(out)
    say(
        f"1/4 corpus: {utterances:,} utterances in five languages, spoken by espeak-ng -> {folder / 'corpus'}"
    )
    manifest = make_demo(folder / "corpus", utterances=utterances, seed=seed)
    import torch

    torch.set_num_threads(1)  # in a model this small more threads gain nothing, and wait for each other
    say(f"2/4 joint training on audio and transcript -> {folder / 'model'}")
    args = ["-c", str(packaged_config("demo.yaml")), "--data.manifest", str(manifest)]
    args += ["--trainer.default_root_dir", str(folder), "--seed_everything", str(seed)]
    run_fit(args + ([] if epochs is None else ["--trainer.max_epochs", str(epochs)]))
    say(f"3/4 evaluation on unheard voices and sentences -> {folder / 'report.html'}")
    if (folder / "metrics.json").exists() and newer(folder / "metrics.json", folder / "model"):
        say(f"{folder / 'metrics.json'} is there already and is used again")
        from mmsr.evaluation.report import markdown_table

        print(markdown_table(loads((folder / "metrics.json").read_text(encoding="utf-8"))))
    else:
        evaluate(model=str(folder / "model"), manifest=str(manifest), out=out, seed=seed)
    say("4/4 three utterances of the test split")
    from mmsr.data.manifest import load_manifest
    from mmsr.inference import load_pipeline

    rows = load_manifest(manifest, split="test").to_list()
    pipe = load_pipeline(folder / "model")
    for kind in ("words", "voice", "conflict"):
        row = next(row for row in rows if row["kind"] == kind and row["language"] == "en")
        answer = pipe({"audio": row["audio"], "text": row["text"]})
        print(
            f"\n{row['audio']}\n  said ({kind}): {row['text']}\n  true: {row['label']} - {row['rationale']}"
        )
        print(format_answer(answer))
    say(f"open {folder / 'report.html'}")
    say(f"your own: mmsr predict --model {folder / 'model'} --audio FILE --text WORDS")


def fit(config: str, **flags: Any) -> None:
    """Train a model as a YAML file says; any of its settings can be given as a flag too.

    Leaves checkpoints/, history.json and the best model as a Hugging Face folder model/ in
    trainer.default_root_dir. The same command goes on from the last checkpoint of an interrupted run.

    Example: mmsr fit -c experiments/demo.yaml --data.manifest my/manifest.csv --trainer.max_epochs 5

    The model: --model.preset, .audio, .text, .pretrained, .decoder, .decoder_type, .fusion,
    .rationale_format, .labels, .text_prefix, .vocab_size, .config. How its parts are trained:
    --model.freeze, .train_layers, .gradual_unfreezing, .lora, .gradient_checkpointing, .feature_store.
    The optimiser: --model.learning_rate, .encoder_learning_rate, .layer_decay, .weight_decay, .warmup_ratio,
    .ema_decay. What is learned: --model.class_weights, .label_smoothing, .uncertainty_weighting, .r_drop,
    .audio_dropout, .text_dropout, .objectives (contrastive, supervised_contrastive, auxiliary_heads,
    ogm_ge). For all: --seed_everything.

    All settings with their meaning: mmsr fit --help_all; the YAML of a run: mmsr fit -c FILE --print_config

    Args:
        config: YAML file (-c FILE); demo.yaml is found from anywhere.
        **flags: Settings such as --data.manifest M, --model.learning_rate R, --trainer.default_root_dir D.
    """
    raise AssertionError("main() hands `fit` to LightningCLI")


def predict(
    model: str,
    audio: str | None = None,
    text: str | None = None,
    manifest: str | None = None,
    columns: dict[str, str] | None = None,
    text_column: Literal["text", "asr_text"] = "text",
    out: str | None = None,
    force_label: str | None = None,
    num_beams: int = 1,
    batch_size: int = 32,
    json: bool = False,
) -> None:
    """Label, probabilities and rationale of one utterance, or of every row of a manifest.

    Example: mmsr predict --model runs/demo/model --audio speech.wav --text "thank you so much doctor"

    Args:
        model: Folder or Hub id of a checkpoint.
        audio: Audio file, in any format libsndfile reads.
        text: Its transcript. One of the two is enough.
        manifest: Table of utterances instead of one.
        columns: Names that columns have in this manifest, such as `{text: transcript}`.
        text_column: Which of the manifest's transcripts the model reads, the human one or the ASR's.
        out: File for a manifest's predictions, one JSON object a line.
        force_label: Explain this label instead of the predicted one.
        num_beams: Beams of the rationale's generation.
        batch_size: Rows at a time.
        json: Print JSON instead of text (--json alone will do).
    """
    if (manifest is None) == (audio is None and text is None):
        raise ValueError("give either --audio and / or --text, or --manifest")
    if text is not None and not text.strip():
        raise ValueError(f"--text {text!r} is empty; accepted: words, or no --text for audio alone")
    if audio is not None and not os.path.isfile(audio):
        raise ValueError(f"--audio {audio}: no such file")
    if manifest is not None and not os.path.isfile(manifest):
        raise ValueError(f"--manifest {manifest}: no such file")
    from mmsr.inference import load_pipeline, predictor

    pipe = load_pipeline(model)
    options = {"num_beams": num_beams} | ({} if force_label is None else {"forced_label": force_label})
    if force_label is not None:
        pipe.processor.label_id(force_label)
    if manifest is None:
        answer = pipe({"audio": audio, "text": text}, **options)
        print(dumps(answer, ensure_ascii=False) if json else format_answer(answer))
        return
    from mmsr.data.manifest import load_manifest
    from mmsr.evaluation.run import predict_rows, write_file

    rows = load_manifest(manifest, labels=pipe.model.config.labels, columns=columns).to_list()
    answered = predict_rows(
        predictor(pipe, batch_size=batch_size, **options),
        rows,
        text_column=text_column,
        progress=progress_bar(),
    )
    lines = "".join(dumps(row, ensure_ascii=False) + "\n" for row in answered)
    if out is None:
        print(lines, end="")
    else:
        write_file(Path(out), lines.encode())
        say(f"{len(answered)} predictions -> {out}")


def evaluate(
    model: str,
    manifest: str,
    out: str,
    split: str = "test",
    train_split: str = "train",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: dict[str, str] | None = None,
    conditions: list[str] | None = None,
    batch_size: int = 32,
    num_beams: int = 1,
    examples: int = 6,
    seed: int = 0,
) -> None:
    """Figures, controls and baselines of a model on a split, and a report.

    Writes metrics.json, predictions.jsonl and report.html with its pictures.

    Example: mmsr evaluate --model runs/demo/model --manifest runs/demo/corpus/manifest.csv --out runs/demo

    Args:
        model: Folder or Hub id of a checkpoint.
        manifest: Table of utterances with labels.
        out: Folder for the results.
        split: Rows to evaluate, by the manifest's column `split`.
        train_split: Rows that the baselines learn from.
        fold: Evaluate this speaker fold's test rows instead of a split, as in training with --data.fold.
        folds: Into how many folds the speakers are cut.
        dev_speakers: How many speakers were the development split in training with --data.dev_speakers, from
            which the baselines do not learn either.
        columns: Names that columns have in this manifest, as in training with --data.columns.
        conditions: Which inputs to try, such as [audio+text,text]; by default all that the rows allow.
        batch_size: Rows at a time.
        num_beams: Beams of the rationales' generation.
        examples: How many utterances the report plays.
        seed: Of the shuffling of audio between rows.
    """
    started = time.perf_counter()
    if not os.path.isfile(manifest):
        raise ValueError(f"--manifest {manifest}: no such file")
    from mmsr.data.manifest import fingerprint, load_manifest, speaker_fold
    from mmsr.evaluation.report import markdown_table, write_report
    from mmsr.evaluation.run import evaluate as evaluate_rows
    from mmsr.evaluation.run import write_run
    from mmsr.inference import examples as shown_examples
    from mmsr.inference import load_pipeline, predictor

    pipe = load_pipeline(model)
    labels = pipe.model.config.labels
    table = load_manifest(manifest, labels=labels, columns=columns)
    if fold is None:
        rows, train_rows = (
            rows_of(table, split, manifest),
            [row for row in table if row["split"] == train_split],
        )
    else:
        parts = speaker_fold(
            table, fold=fold, folds=folds, dev_speakers=dev_speakers, source=Path(manifest).name
        )
        rows, train_rows = (table.select(parts[name]).to_list() for name in ("test", "train"))
    figures, predictions = evaluate_rows(
        predictor(pipe, batch_size=batch_size, num_beams=num_beams),
        rows,
        labels=labels,
        train_rows=train_rows,
        conditions=conditions,
        seed=seed,
        progress=progress_bar(),
    )
    metrics = write_run(
        out,
        {split: figures},
        predictions,
        seed=seed,
        data_fingerprint=fingerprint(table),
        command=" ".join(sys.argv),
        seconds=time.perf_counter() - started,
    )
    history = Path(model).parent / "history.json"
    report = write_report(
        out,
        title=f"{Path(model).resolve().parent.name}: {Path(manifest).name}, {split}",
        metrics=metrics,
        predictions=predictions,
        labels=labels,
        history=loads(history.read_text(encoding="utf-8")) if history.exists() else None,
        examples=shown_examples(pipe, spread(rows, examples)),  # type: ignore[arg-type]
        split=split,
    )
    print(markdown_table(metrics, split=split))
    say(f"report: {report}")


def export(checkpoint: str, out: str) -> None:
    """Turn a Lightning checkpoint of `mmsr fit` into a Hugging Face folder.

    Example: mmsr export --checkpoint runs/demo/checkpoints/last.ckpt --out my-model

    Args:
        checkpoint: A .ckpt file.
        out: Folder to write.
    """
    from mmsr.training.callbacks import save_model
    from mmsr.training.module import load_lightning_checkpoint

    if os.path.exists(out):
        raise ValueError(f"--out {out} exists already; accepted: a new folder")
    save_model(*load_lightning_checkpoint(checkpoint), Path(out))
    say(f"{checkpoint} -> {out}")


def make_demo(out: str, utterances: int = 2400, seed: int = 0) -> None:
    """Speak the embedded five-language corpus; writes OUT/manifest.csv and OUT/audio/.

    Example: mmsr data make-demo --out runs/demo/corpus

    Args:
        out: Folder to write.
        utterances: How many.
        seed: The same seed gives the same bytes.
    """
    from mmsr.data.demo import make_demo as make

    say(f"corpus: {make(Path(out), utterances=utterances, seed=seed)}")


def check(manifest: str, labels: list[str] | None = None, columns: dict[str, str] | None = None) -> None:
    """Read a manifest whole and print every fault with row and column; exit code 2 where there is one.

    Example: mmsr data check --manifest my/manifest.csv

    Args:
        manifest: A csv, tsv, jsonl, parquet or xlsx file.
        labels: Accepted labels; negative, neutral, positive by default.
        columns: Names that columns have in this manifest, such as `{rationale: human_justification}`.
    """
    if not os.path.isfile(manifest):
        raise ValueError(f"--manifest {manifest}: no such file")
    from mmsr.data.manifest import load_manifest

    rows = load_manifest(manifest, labels=labels or ["negative", "neutral", "positive"], columns=columns)
    for column in ("split", "label", "language", "kind"):
        values = rows[column]
        counts = ", ".join(f"{value} {values.count(value):,}" for value in sorted({v for v in values if v}))
        print(f"{column}: {counts or 'not given'}")
    print(f"{len(rows):,} rows, no faults")


def features(
    store: str,
    evict_to: str | None = None,
    older_than: str | None = None,
    clear: bool = False,
    json: bool = False,
) -> None:
    """What a feature store holds, how often it answered, and making room in it.

    A program that trains meanwhile goes on, and encodes again what it misses.

    Example: mmsr data features --store runs/features --evict-to 2GB

    Args:
        store: Folder of the store, as in training with --model.feature_store.
        evict_to: Remove the least recently used entries until so much is left, such as 2GB or 500MB.
        older_than: Remove entries that were not used for so long, such as 30d or 12h.
        clear: Remove all entries (--clear alone will do).
        json: Print JSON instead of a table (--json alone will do).
    """
    if not os.path.isdir(store):
        raise ValueError(f"--store {store}: no such folder")
    if clear and (evict_to or older_than):
        raise ValueError(
            "--clear removes all, and --evict-to and --older-than leave some: give one or the other"
        )
    to_bytes = 0 if clear else as_bytes(evict_to)
    seconds = as_seconds(older_than)
    from mmsr.data.features import FeatureStore

    found = FeatureStore(store)
    if to_bytes is not None or seconds is not None:
        removed, freed = found.evict(to_bytes=to_bytes, older_than=seconds)
        say(f"{removed:,} entries removed, {freed / 1e6:,.1f} MB")
    makers, runs = found.makers(), found.runs()
    if json:
        print(dumps({"store": store, "encoders": makers, "runs": runs}))
        return
    for one in makers:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["used"]))
        held = f"{one['entries']:>9,} entries  {one['bytes'] / 1e6:>10,.1f} MB  last used {used}"
        print(f"{one['maker']}  {held}  {one['dtype'] or '-'}  {one['name']}")
    entries, size = (sum(one[what] for one in makers) for what in ("entries", "bytes"))
    print(f"{entries:,} entries, {size / 1e6:,.1f} MB")
    for run in runs:
        asked = run["hits"] + run["misses"]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["time"]))
        share = f" ({run['hits'] / asked:.0%})" if asked else ""
        print(f"{when}  {run['run']}: {run['hits']:,} of {asked:,} were there{share}")


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "export": export,
    "data": {"_help": "Corpora and manifests.", "make-demo": make_demo, "check": check, "features": features},
}


# ---------------------------------------------------------------------- helpers of the commands


def say(line: str) -> None:
    """Tell what happens, on stderr, so that stdout holds results alone."""
    print(line, file=sys.stderr, flush=True)


def format_answer(answer: dict[str, Any]) -> str:
    """An answer as three lines for a person."""
    scores = "  ".join(f"{label} {score:.2f}" for label, score in answer["scores"].items())
    lines = [f"  label: {answer['label']} ({answer['score']:.2f})", f"  scores: {scores}"]
    if answer["rationale"] is not None:
        forced = f" (if it were {answer['forced_label']})" if "forced_label" in answer else ""
        lines.append(f"  rationale{forced}: {answer['rationale']}")
    return "\n".join(lines)


def progress_bar() -> Callable[[str, int, int], None] | None:
    """A progress bar on stderr, where that is a terminal: called with task, done and total."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in tasks:
            bar.start()
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done)
        if done == total:
            bar.refresh()
            bar.stop()

    return show


def as_bytes(size: str | None) -> int | None:
    """2GB as a number of bytes."""
    from datasets.utils.py_utils import convert_file_size_to_int

    if size is None:
        return None
    try:
        return int(convert_file_size_to_int(size))
    except ValueError:
        raise ValueError(f"--evict-to {size!r} is no size; accepted: such as 2GB or 500MB") from None


def as_seconds(duration: str | None) -> float | None:
    """30d as a number of seconds."""
    if duration is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(d|h|min)", duration)
    if found is None:
        raise ValueError(f"--older-than {duration!r} is no duration; accepted: such as 30d, 12h or 90min")
    return float(found[1]) * {"d": 86400, "h": 3600, "min": 60}[found[2]]


def rows_of(table: Any, split: str, manifest: str) -> list[dict[str, Any]]:
    """The rows of one split."""
    rows = [row for row in table if row["split"] == split]
    if not rows:
        found = ", ".join(sorted({str(value) for value in table["split"]}))
        raise ValueError(f"{manifest}, column split: no row is in {split!r}; found: {found}")
    return rows


def spread(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Some rows of each kind, English first since its attention picture needs no special font."""
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in rows:
        if row["audio"] or row["text"]:
            groups.setdefault((row["language"] != "en", row["kind"]), []).append(row)
    ordered = [groups[key] for key in sorted(groups, key=str)]
    turns = (group[turn] for turn in range(len(rows)) for group in ordered if turn < len(group))
    return [row for row, _ in zip(turns, range(count), strict=False)]


def packaged_config(name: str) -> Path:
    """A configuration that the wheel carries (in a checkout: in experiments/)."""
    package = Path(__file__).parent
    for folder in (package / "experiments", package.parent / "experiments"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{name} is no packaged configuration")


def newer(file: Path, folder: Path) -> bool:
    """Whether a file was written after a folder."""
    return file.stat().st_mtime >= folder.stat().st_mtime


def run_fit(args: list[str]) -> None:
    """Hand `mmsr fit`'s arguments to LightningCLI."""
    for position, value in enumerate(args[:-1]):
        wanted = args[position + 1]
        if value in ("-c", "--config") and not os.path.isfile(wanted):
            args[position + 1] = str(packaged_or_missing(wanted))
    from mmsr.training.run import fit as train

    say(f"model: {train(args)}")


def packaged_or_missing(name: str) -> Path:
    """A configuration file that is not where it was said to be: one of ours, or an error."""
    try:
        return packaged_config(Path(name).name)
    except ValueError:
        raise ValueError(f"-c {name}: no such file") from None


def fill_parser(parser: Any, commands: dict[str, Any]) -> None:
    """Give a parser one subcommand for each function (its signature are the flags) or dict of functions."""
    subcommands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, command in commands.items():
        nested = isinstance(command, dict)
        doc = command["_help"] if nested else (inspect.getdoc(command) or "").split("\n\nArgs:")[0]
        subparser = type(parser)(description=doc, formatter_class=parser.formatter_class)
        subcommands.add_subcommand(name, subparser, help=doc.splitlines()[0])
        if nested:
            fill_parser(subparser, {key: value for key, value in command.items() if key != "_help"})
        else:
            subparser.add_function_arguments(command, as_group=False)


def make_parser() -> Any:
    """The parser of the command `mmsr`."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps a docstring's lines, and shows types and defaults."""

    parser = ArgumentParser(
        prog="mmsr",
        description="Multimodal sentiment reasoning: a sentiment and its reason, from speech and transcript.",
        formatter_class=Formatter,
    )
    fill_parser(parser, COMMANDS)
    return parser


def call(commands: dict[str, Any], settings: Any) -> None:
    """Call the function that the parsed settings chose."""
    command = commands[settings["command"]]
    chosen = settings[settings["command"]]
    if isinstance(command, dict):
        call(command, chosen)
    else:
        command(**chosen.as_dict())


def as_flags(argv: Sequence[str]) -> list[str]:
    """Flags as the parser knows them: `--force_label` for `--force-label`, `--json=true` for `--json`."""
    flags = []
    for value in argv:
        if value.startswith("--"):
            name, equals, rest = value.partition("=")
            value = "--" + name[2:].replace("-", "_") + equals + rest
        flags.append(f"{value}=true" if value in ("--json", "--clear") else value)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `mmsr`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["fit"] and "--help" not in argv and "-h" not in argv:
            run_fit(["--help" if value == "--help_all" else value for value in argv[1:]])
        else:
            call(COMMANDS, make_parser().parse_args(as_flags(argv)))
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except (ValueError, OSError) as error:
        say(f"mmsr: error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
