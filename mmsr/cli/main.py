"""The command `mmsr`: one dict of command -> function, whose signature is the command's flags.

Functions import what they need when they run, so that `mmsr --help` answers without torch. Bad input ends
with one line on stderr and exit code 2, faults that `data check` finds with 1, an interruption with 130;
nothing half-written stays.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from json import dumps, loads
from pathlib import Path
from typing import Any, Literal

from mmsr.cli.console import at_least_one, live_table, must_be_there, progress_bar, say
from mmsr.cli.data import DATA_COMMANDS
from mmsr.cli.evaluation import EVALUATION_COMMANDS, evaluate, own_folder, rows_of
from mmsr.cli.parser import as_flags, as_mapping, as_typed, call, called, make_parser
from mmsr.cli.setup import SETUP_COMMANDS

_SHORTEST, _LONGEST = 0.1, 300.0  # seconds of audio for which one answer says something


def demo(out: str = "runs/demo", utterances: int = 2400, seed: int = 0, epochs: int | None = None) -> None:
    """The main job from end to end: make the corpus, train jointly, evaluate, report, predict.

    Example: mmsr demo

    Args:
        out: Folder of the run. What is there already is used again.
        utterances: Size of the corpus.
        seed: Of the corpus and of the training.
        epochs: Train for other than the configuration's number of epochs.
    """
    from mmsr.data.corpora.demo.corpus import make_demo

    folder = Path(out)
    own_folder(out, "metrics.json")
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
    from mmsr.data.manifest.manifest import load_manifest
    from mmsr.inference.loading import load_pipeline

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
    --model.freeze, .train_layers, .gradual_unfreezing, .lora, .attention, .gradient_checkpointing,
    .feature_store, .feature_dtype.
    The optimiser: --model.learning_rate, .encoder_learning_rate, .layer_decay, .weight_decay, .warmup_ratio,
    .ema_decay. What is learned: --model.class_weights, .label_smoothing, .uncertainty_weighting, .r_drop,
    .audio_dropout, .text_dropout, .objectives (contrastive, supervised_contrastive, auxiliary_heads,
    ogm_ge). For all: --seed_everything.

    Loggers instead of the CSV in logs/ (extra `loggers`): --trainer.logger TensorBoardLogger
    --trainer.logger.save_dir DIR, or --trainer.logger WandbLogger --trainer.logger.save_dir DIR
    --trainer.logger.offline true (uploads nothing; without it W&B's own log-in); several as a list in the
    YAML, CSVLogger among them where the CSV is to stay.

    All settings with their meaning: mmsr fit --help_all; the YAML of a run: mmsr fit -c FILE --print_config

    Args:
        config: YAML file (-c FILE); demo.yaml and own.yaml are found from anywhere.
        **flags: Settings such as --data.manifest M, --model.learning_rate R, --trainer.default_root_dir D.
    """
    raise AssertionError("main() hands `fit` to LightningCLI")


def predict(
    model: str = "demo",
    audio: str | None = None,
    text: str | None = None,
    manifest: str | None = None,
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
    text_column: Literal["text", "asr_text"] = "text",
    out: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    force_label: str | None = None,
    alternatives: bool = False,
    html: str | None = None,
    abstain_below: float | None = None,
    num_beams: int = 1,
    batch_size: int = 32,
    json: bool = False,
) -> None:
    """Label, probabilities and rationale of one utterance, or of every row of a manifest.

    Example: mmsr predict --model runs/demo/model --audio speech.wav --text "thank you so much doctor"

    Args:
        model: Folder or Hub id of a checkpoint; demo is the packaged one, which is for trying this out.
        audio: Audio file, in any format libsndfile reads, or ffmpeg where that is installed.
        text: Its transcript. One of the two is enough.
        manifest: Table of utterances instead of one.
        columns: Names that columns have in this manifest, such as `{text: transcript}`.
        label_map: What labels are called in it, such as `{pos: positive}`.
        text_column: Which of the manifest's transcripts the model reads, the human one or the ASR's.
        out: File for a manifest's predictions, one JSON object a line.
        asr: Folder or Hub id of a recogniser, which writes the transcript of --audio. For a manifest there is
            `mmsr transcribe`.
        language: That is spoken, such as `vi`, for --asr; by default it detects it.
        force_label: Explain this label instead of the predicted one.
        alternatives: The rationales under the other labels too (--alternatives alone will do).
        html: Page to write: sound, words and moments coloured by attention, probabilities, rationales.
        abstain_below: Mark answers whose label is less probable than this, such as 0.6: they keep the label
            and have `abstained` true, the others false.
        num_beams: Beams of the rationale's generation.
        batch_size: Rows at a time.
        json: Print JSON instead of text (--json alone will do).
    """
    if (manifest is None) == (audio is None and text is None):
        raise ValueError("give either --audio and / or --text, or --manifest")
    if text is not None and not text.strip():
        raise ValueError(f"--text {text!r} is empty; accepted: words, or no --text for audio alone")
    if audio is not None and not os.path.isfile(audio):
        what = "a folder" if os.path.isdir(audio) else "no such file"
        raise ValueError(f"--audio {audio}: {what}; accepted: an audio file, or --manifest for many")
    one_utterance = {"asr": asr, "alternatives": alternatives, "html": html}
    if manifest is not None:
        must_be_there("manifest", manifest)
        if given := [flag for flag, value in one_utterance.items() if value]:
            raise ValueError(f"--{given[0]} with --manifest; accepted: with --audio or --text, or without it")
    if asr is not None and (audio is None or text is not None):
        raise ValueError(f"--asr {asr} writes the transcript of --audio; accepted: --audio, and no --text")
    if language is not None and asr is None:
        raise ValueError(f"--language {language} is told to a recogniser; accepted: with --asr")
    if out is not None and manifest is None:
        raise ValueError(
            f"--out {out} is for a --manifest's predictions; accepted: --json > {out}, or --html"
        )
    at_least_one(num_beams=num_beams, batch_size=batch_size)
    if html is not None and not html.lower().endswith((".html", ".htm")):
        raise ValueError(f"--html {html} has another ending; accepted: .html")
    if abstain_below is not None and not 0 < abstain_below <= 1:
        raise ValueError(f"--abstain-below {abstain_below:g}; accepted: a probability, above 0, to 1")
    from mmsr.inference.loading import load_pipeline, predictor

    pipe = load_pipeline(model)
    options: dict[str, Any] = {"num_beams": num_beams} | (
        {} if force_label is None else {"forced_label": force_label}
    )
    if force_label is not None:
        pipe.processor.label_id(force_label)
    if manifest is None:
        answer = answer_one(
            pipe,
            {"audio": audio, "text": text, "language": language},
            html=html,
            **options,
            **({} if asr is None else {"asr": asr}),
            alternatives=alternatives,
            abstain_below=abstain_below,
        )
        print(dumps(answer, ensure_ascii=False) if json else format_answer(answer))
        for line in () if audio is None else advice(audio):
            say(line)
        return
    from mmsr.data.manifest.manifest import load_manifest
    from mmsr.evaluation.run import predict_rows
    from mmsr.files import write_file

    rows = load_manifest(
        manifest, labels=pipe.model.config.labels, columns=columns, label_map=label_map
    ).to_list()
    answered = predict_rows(
        predictor(pipe, batch_size=batch_size, **options),
        rows,
        text_column=text_column,
        progress=progress_bar(),
    )
    if abstain_below is not None:
        for row in answered:
            row["abstained"] = row["scores"][row["predicted_label"]] < abstain_below
        say(f"abstained from {sum(row['abstained'] for row in answered):,} of {len(answered):,}")
    lines = "".join(dumps(row, ensure_ascii=False) + "\n" for row in answered)
    if out is None:
        print(lines, end="")
    else:
        write_file(Path(out), lines.encode())
        say(f"{len(answered)} predictions -> {out}")


def transcribe(
    manifest: str,
    asr: str,
    out: str,
    language: str | None = None,
    split: str | None = None,
    speakers: list[str] | None = None,
    columns: dict[str, str] | None = None,
    timestamps: Literal["none", "segment", "word"] = "none",
    batch_size: int = 8,
    num_beams: int = 1,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    keep_going: bool = False,
    json: bool = False,
) -> None:
    """Fill a manifest's column asr_text by a speech recogniser; prints error rates where `text` is known.

    Writes a copy of the manifest. OUT.journal.jsonl beside it grows with every batch: the same command goes
    on from there after an interruption, and after new rows came in. Delete it when nothing is to follow.

    Example: mmsr transcribe --manifest my/manifest.csv --asr openai/whisper-base --out my/heard.csv

    Args:
        manifest: Table of utterances with audio.
        asr: Folder or Hub id of a recogniser: Whisper, Moonshine, wav2vec2 with CTC, MMS ...
        out: Copy to write; csv, tsv, jsonl, parquet or xlsx by its ending.
        language: Of every row, such as `vi`, or `detect`; by default each row's own, detected where it has
            none.
        split: Hear the rows of this split alone; the others keep their asr_text.
        speakers: Hear the rows of these speakers alone, such as [anna,ben].
        columns: Names that columns have in this manifest, such as `{text: transcript}`.
        timestamps: Write words or segments with their times to OUT.words.jsonl.
        batch_size: Rows at a time.
        num_beams: Beams of the recogniser, where it has a decoder.
        dtype: Precision; auto is bfloat16 where the processor computes in it.
        keep_going: Leave rows with faulty audio without a transcript (--keep-going alone will do).
        json: Print the error rates as JSON (--json alone will do).
    """
    must_be_there("manifest", manifest)
    from mmsr.evaluation.error_rates import markdown_table, word_error_rate
    from mmsr.speech.recogniser import Transcriber
    from mmsr.speech.transcribe import transcribe_manifest

    recogniser = Transcriber(
        asr, timestamps=timestamps, batch_size=batch_size, num_beams=num_beams, dtype=dtype
    )
    done = transcribe_manifest(
        manifest,
        recogniser,
        out,
        language=language,
        split=split,
        speakers=speakers,
        columns=columns,
        keep_going=keep_going,
        progress=progress_bar(),
    )
    for fault in done.issues:
        say(f"left without a transcript: {fault}")
    say(f"{done.heard:,} utterances heard, {done.known:,} known from {out}.journal.jsonl -> {out}")
    human = [row for row in done.rows if row["text"]]
    if not human:
        say("no row has a human transcript (column text): no error rates")
        return
    rates = word_error_rate(*([row[name] for row in human] for name in ("text", "asr_text", "language")))
    print(dumps(rates, ensure_ascii=False) if json else markdown_table(rates))


def timeline(
    audio: str,
    model: str = "demo",
    out: str | None = None,
    turns: str | None = None,
    transcript: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    min_seconds: float = 0.25,
    max_seconds: float = 20.0,
    max_silence: float = 0.5,
    padding: float = 0.1,
    threshold: float = 0.5,
    smooth: float = 0.0,
    player: Literal["auto", "inline", "beside", "link", "none"] = "auto",
    batch_size: int = 16,
    num_beams: int = 1,
    json: bool = False,
) -> None:
    """A whole recording along its time axis: segments of speech with transcript, label and rationale.

    Writes JSONL, CSV, SRT, VTT, an HTML page with a player, and a summary. OUT.journal.jsonl (in a folder:
    timeline.journal.jsonl) grows with every batch: the same command goes on from there after an interruption.
    Delete it when nothing is to follow. A recording without speech has an empty timeline.

    Example: mmsr timeline --audio consultation.wav
    Example: mmsr timeline --model runs/demo/model --audio consultation.wav --out timeline.srt

    Args:
        audio: The recording, of any length, in any format libsndfile reads, or ffmpeg where that is
            installed.
        model: Folder or Hub id of a checkpoint; demo is the packaged one, which is for trying this out.
        out: Folder for all forms, or one file: .jsonl, .csv, .srt, .vtt or .html. By default a folder here
            with the recording's name, without its ending.
        turns: RTTM file with the speakers' turns, which are the segments instead of what silero-vad finds.
        transcript: Words with times: .srt, .vtt, or a table with columns start, end and text.
        asr: Folder or Hub id of a recogniser, which hears each segment.
        language: What the recogniser is told is spoken, such as `vi`; detected for each segment by default.
        min_seconds: Shorter speech, or turns, are left out.
        max_seconds: Longest segment; longer speech is cut at its quietest points.
        max_silence: A longer silence ends a segment.
        padding: Seconds kept before and after speech.
        threshold: Probability from which on the detector's answer is speech.
        smooth: Average probabilities with those around, by a Gaussian of so many seconds, speaker by speaker.
        player: Sound of the page: in it, an MP3 beside it, a link to the recording, or none; auto is in it up
            to ten minutes, and beside it from there.
        batch_size: Segments at a time.
        num_beams: Beams of the rationale's generation.
        json: Print the summary as JSON instead of text (--json alone will do).
    """
    for flag, path in (("audio", audio), ("turns", turns), ("transcript", transcript)):
        if path is not None and "://" not in path and not os.path.isfile(path):
            raise ValueError(f"--{flag} {path}: no such file")
    if asr is not None and transcript is not None:
        raise ValueError("give --asr or --transcript, or neither: both tell the words")
    if language is not None and asr is None:
        raise ValueError(f"--language {language} is for the recogniser: give --asr too")
    if smooth < 0:
        raise ValueError(f"--smooth {smooth:g}; accepted: seconds above 0, or 0 for none")
    at_least_one(num_beams=num_beams, batch_size=batch_size)
    out = timeline_folder(audio) if out is None else out
    from mmsr.inference.timeline.formats import as_text, output_files, write_timeline
    from mmsr.inference.timeline.transcripts import read_cues, read_turns

    inputs = [path for path in (audio, turns, transcript) if path is not None]
    first, *others = output_files(out, audio=audio, player=player, inputs=inputs)
    journal = first.with_name(f"{first.stem if others else first.name}.journal.jsonl")
    given_turns = None if turns is None else read_turns(turns, recording=Path(audio).stem)
    cues = None if transcript is None else read_cues(transcript)
    from mmsr.data.audio.segments import Segmentation
    from mmsr.inference.loading import load_pipeline
    from mmsr.inference.timeline.make import make_timeline

    settings = Segmentation(
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        max_silence=max_silence,
        padding=padding,
        threshold=threshold,
    )
    recogniser = None
    if asr is not None:
        from mmsr.speech.recogniser import Transcriber

        recogniser = Transcriber(asr, language=language, batch_size=batch_size)
    progress = progress_bar()
    made = make_timeline(
        audio,
        load_pipeline(model),
        settings=settings,
        turns=given_turns,
        transcript=cues,
        transcriber=recogniser,
        language=language,
        batch_size=batch_size,
        num_beams=num_beams,
        journal=journal,
        progress=progress,
    )
    if not made.segments:
        say(f"no speech found in the {made.seconds:.1f} s of {audio}: the timeline is empty")
    if smooth:
        made = made.smoothed(smooth)
    written = write_timeline(made, out, player=player, progress=progress)
    summary = made.summary()
    print(dumps(summary, ensure_ascii=False) if json else as_text(summary))
    say(f"timeline: {', '.join(map(str, written))}")


def ablate(
    config: str,
    jobs: int | None = None,
    out: str | None = None,
    dry_run: bool = False,
    ray: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
) -> None:
    """Train variants of a configuration with several seeds, and compare them on the test rows.

    Writes results.json, table.md, report.html, report.md and plot.png. Runs are named by their settings and
    data: what is finished is found again, and the same command goes on after an interruption. Exit code 1
    where a run failed.

    Example: mmsr ablate -c experiments/ablations/fusions.yaml --jobs 2
    Example: mmsr ablate -c experiments/ablations/fusions.yaml --ray auto --gpus 0.25

    Args:
        config: YAML file (-c FILE) with base, settings, grid, variants, seeds, folds, reference, evaluation
            and out.
        jobs: Runs at a time, each a process with one thread: 1 by default, with --ray as many as fit.
        out: Folder for the results, instead of the file's.
        dry_run: Check the file, list its runs and end (--dry-run alone will do).
        ray: Run on this Ray cluster (extra ray): auto, HOST:PORT, or local. Its machines must see the same
            folders.
        cpus: Processors of a run, with --ray.
        gpus: GPUs of a run, with --ray; a part lets several share one.
    """
    from mmsr.ablation.ablate import ablate as run_ablation
    from mmsr.ablation.plan import plan
    from mmsr.ablation.ray import RayCluster
    from mmsr.ablation.report import table
    from mmsr.ablation.runner import LocalProcesses, Runner
    from mmsr.ablation.spec import read_ablation
    from mmsr.inference.loading import open_predictor

    ablation = read_ablation(config, out=out, find=lambda name: packaged_config(Path(name).name))
    if ray is None and (cpus, gpus) != (1, 0.0):
        raise ValueError(f"--cpus {cpus} --gpus {gpus:g} are of --ray; accepted: --ray ADDRESS beside them")
    runner: Runner = (
        LocalProcesses(1 if jobs is None else jobs)
        if ray is None
        else RayCluster(ray, jobs=jobs, cpus=cpus, gpus=gpus)
    )
    if dry_run:
        for run in itertools.chain.from_iterable(plan(ablation)):
            state = "to do" if run.result() is None else "finished"
            print(f"{run.folder}  {state}  {run.label}")
        return
    own_folder(str(ablation.out), "results.json")
    with live_table(ablation.name) as show:
        results = run_ablation(ablation, open_model=open_predictor, runner=runner, show=show)
    print(f"{table(results)}\n{results['paragraph']}")
    say(f"{ablation.out / 'report.html'}; results.json, table.md and plot.png beside it")
    for failed in results["failed"]:
        say(f"failed: {failed['run']} ({failed['settings']}): {failed['error']}")
    if results["failed"]:
        sys.exit(1)


def export(
    out: str,
    checkpoint: str | None = None,
    format: Literal["huggingface", "onnx"] = "huggingface",
    model: str | None = None,
    manifest: str | None = None,
    split: str = "test",
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
    batch_size: int = 32,
) -> None:
    """Turn a Lightning checkpoint into a Hugging Face folder, or a model into ONNX graphs.

    `--format onnx` writes encoder.onnx (both encoders, fusion and head), decoder.onnx (one step, with its
    cache), and both with 8-bit weights (.int8.onnx). The graphs are checked against torch, and with
    --manifest their answers too, whose agreement is in agreement.json.

    Example: mmsr export --checkpoint runs/demo/checkpoints/last.ckpt --out my-model
    Example: mmsr export --format onnx --model runs/demo/model --out my-onnx

    Args:
        out: Folder to write.
        checkpoint: A .ckpt file of `mmsr fit`, for a Hugging Face folder.
        format: What to write.
        model: Folder or Hub id of a checkpoint, for ONNX; demo is the packaged one.
        manifest: Table of utterances that torch and the graphs answer, to tell what 8 bits cost.
        split: Which of its rows.
        columns: Names that columns have in this manifest.
        label_map: What labels are called in it.
        batch_size: Rows at a time.
    """
    wanted, other = ("checkpoint", model) if format == "huggingface" else ("model", checkpoint)
    if (checkpoint is None and model is None) or other is not None:
        raise ValueError(f"--format {format} is made of a {wanted}; accepted: --{wanted}, and no other")
    if os.path.exists(out):
        raise ValueError(f"--out {out} exists already; accepted: a new folder")
    if manifest is not None:
        if format != "onnx":
            raise ValueError("--manifest measures ONNX graphs; accepted: with --format onnx")
        must_be_there("manifest", manifest)
    if checkpoint is not None:
        from mmsr.training.callbacks import save_model
        from mmsr.training.module import load_lightning_checkpoint

        save_model(*load_lightning_checkpoint(checkpoint), Path(out))
        say(f"{checkpoint} -> {out}")
        return
    from mmsr.data.manifest.manifest import load_manifest
    from mmsr.files import write_file
    from mmsr.inference.loading import load_pipeline, predictor
    from mmsr.inference.onnx import compare_precisions, export_onnx

    assert model is not None
    pipe = load_pipeline(model, device="cpu")
    rows: list[dict[str, Any]] = []
    if manifest is not None:  # before the export, which takes longer than finding a fault in it
        table = load_manifest(manifest, labels=pipe.model.config.labels, columns=columns, label_map=label_map)
        rows = rows_of(table, split, manifest)
    for graph, difference in export_onnx(pipe.model, pipe.processor, out).items():
        whole, small = (Path(out, graph + end).stat().st_size / 1e6 for end in (".onnx", ".int8.onnx"))
        print(f"{graph}: largest difference from torch {difference:.1e}; {whole:.1f} MB, int8 {small:.1f} MB")
    if rows:
        records: list[Any] = [{name: row[name] for name in ("audio", "text", "language")} for row in rows]
        answers = predictor(pipe, batch_size=batch_size)(records)
        agreement = compare_precisions(out, rows, answers, batch_size=batch_size)
        write_file(Path(out, "agreement.json"), dumps(agreement, indent=1).encode())
        for precision, kept in agreement.items():
            line = f"{precision}: labels of torch {kept['label']:.1%}, rationales {kept['rationale']:.1%}"
            if "accuracy" in kept:
                line += f", accuracy {kept['accuracy']:.3f} (torch {kept['accuracy_of_torch']:.3f})"
            print(f"{line}; {kept['n']:,} rows, {split}")
    say(f"{model} -> {out}")


def app(
    model: str = "demo",
    port: int | None = None,
    asr: str | None = None,
    share: bool = False,
    max_seconds: float = 60.0,
    max_megabytes: float = 20.0,
    max_timeline_seconds: float = 600.0,
) -> None:
    """A web page to try a model on: record or upload speech, see label, probabilities, attention, rationale.

    A second tab makes the timeline of a whole recording, and its files.

    It answers this machine alone (GRADIO_SERVER_NAME=0.0.0.0 opens it to the network), one request at a
    time, and deletes what it was sent after an hour, or when it ends. Programs ask it through gradio_client;
    its tab API says how. Ctrl-C ends it.

    Example: mmsr app --model runs/demo/model --asr openai/whisper-base

    Args:
        model: Folder or Hub id of a checkpoint; demo is the packaged one, which is for trying this out.
        port: Of the page; by default the first that is free from 7860 on.
        asr: Folder or Hub id of a recogniser, which writes transcripts and hears the words of timelines.
        share: Also give it a public address for a week, through gradio.live (--share alone will do).
        max_seconds: Longest utterance that is taken.
        max_megabytes: Largest file that is taken.
        max_timeline_seconds: Longest recording of which a timeline is made.
    """
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"--port {port}; accepted: 1 to 65535")
    # before gradio is imported, which reads it: nothing is told to anyone of who serves what
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if find_spec("gradio") is None:
        raise ValueError("the web page needs gradio: pip install 'mmsr[app]'")
    from mmsr.inference.loading import load_pipeline
    from mmsr.serving.app import Limits, launch, make_app, uploads_folder

    limits = Limits(seconds=max_seconds, megabytes=max_megabytes, timeline_seconds=max_timeline_seconds)
    recogniser = None
    if asr is not None:
        from mmsr.speech.recogniser import Transcriber

        recogniser = Transcriber(asr)
    pipe = load_pipeline(model)
    with uploads_folder():
        page = make_app(pipe, transcribe=recogniser, limits=limits, name=Path(model).name)
        say(f"open {launch(page, port=port, share=share, megabytes=max_megabytes)} (Ctrl-C ends it)")
        page.block_thread()


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "fit": fit,
    "predict": predict,
    **EVALUATION_COMMANDS,
    "transcribe": transcribe,
    "timeline": timeline,
    "ablate": ablate,
    "export": export,
    "app": app,
    "data": DATA_COMMANDS,
    **SETUP_COMMANDS,
}


# ---------------------------------------------------------------------- helpers of the commands


def timeline_folder(audio: str) -> str:
    """The folder of a recording's timeline where none is named; one of another's is not written into."""
    folder = Path(Path(audio).stem)
    if folder.exists() and not any(folder.glob("timeline.*")):
        raise ValueError(f"{folder}/ is there and holds no timeline; accepted: --out with another folder")
    return str(folder)


def advice(audio: str) -> Iterator[str]:
    """What to know of a recording that a model answers nonetheless: it is silent, very short or very long."""
    from mmsr.data.audio.decoding import Audio
    from mmsr.data.manifest.check.audio import hear

    seconds = Audio.duration(audio)
    if seconds < _SHORTEST:
        yield f"{audio} lasts {seconds * 1000:.0f} ms: too short for speech, so the answer says nothing of it"
    elif seconds > _LONGEST:
        yield (
            f"{audio} lasts {seconds / 60:.0f} minutes and gets one answer for all of it; "
            "mmsr timeline answers for each segment of speech"
        )
    elif any(code == "audio-silent" for code, _ in hear(Audio()(audio))):
        yield f"{audio} is silent: the answer says nothing of it"


def answer_one(pipe: Any, utterance: dict[str, Any], *, html: str | None, **options: Any) -> dict[str, Any]:
    """Answer an utterance, and write the page that shows it."""
    if html is None:
        return pipe(utterance, **options)
    from mmsr.evaluation.explain.attention import looks
    from mmsr.files import write_file

    answer = pipe(utterance, **options, attention=bool(looks(pipe.model.config.fusion)))
    write_file(html, answer.page().encode())
    say(f"page: {html}")
    return {name: value for name, value in answer.items() if name != "attention"}


def format_answer(answer: dict[str, Any]) -> str:
    """An answer as three lines for a person."""
    scores = "  ".join(f"{label} {score:.2f}" for label, score in answer["scores"].items())
    abstained = ", abstained" if answer.get("abstained") else ""
    lines = [f"  label: {answer['label']} ({answer['score']:.2f}){abstained}", f"  scores: {scores}"]
    if answer["rationale"] is not None:
        forced = f" (if it were {answer['forced_label']})" if "forced_label" in answer else ""
        lines.append(f"  rationale{forced}: {answer['rationale']}")
    if "transcript" in answer:
        lines.insert(0, f"  heard: {answer['transcript'] or 'no words'}")
    for label, rationale in answer.get("alternatives", {}).items():
        lines.append(f"  rationale (if it were {label}): {rationale}")
    return "\n".join(lines)


def packaged_config(name: str) -> Path:
    """A configuration that the wheel carries (in a checkout: in experiments/)."""
    package = Path(__file__).parents[1]
    for folder in (package / "experiments", package.parent / "experiments"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{name} is no packaged configuration")


def newer(file: Path, folder: Path) -> bool:
    """Whether a file was written after a folder."""
    return file.stat().st_mtime >= folder.stat().st_mtime


def run_fit(args: list[str]) -> None:
    """Hand `mmsr fit`'s arguments to LightningCLI."""
    given: list[str] = []
    words = list(args)
    while words:
        flag = words.pop(0)
        given.append(flag)
        if flag in ("-c", "--config") and words and not os.path.isfile(words[0]):
            words[0] = str(packaged_or_missing(words[0]))
        elif flag in ("--data.columns", "--data.label_map"):
            own = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
            words[: len(own)] = [as_mapping(own)]
    from mmsr.training.run import fit as train

    say(f"model: {train(given)}")


def packaged_or_missing(name: str) -> Path:
    """A configuration file that is not where it was said to be: one of ours, or an error."""
    try:
        return packaged_config(Path(name).name)
    except ValueError:
        raise ValueError(f"-c {name}: no such file") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `mmsr`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["fit"] and "--help" not in argv and "-h" not in argv:
            run_fit(["--help" if value == "--help_all" else value for value in argv[1:]])
        else:
            call(COMMANDS, make_parser(COMMANDS).parse_args(as_flags(COMMANDS, argv)))
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # who reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except ArgumentError as error:
        say(f"mmsr: error: {as_typed(str(error))} ({' '.join(['mmsr', *called(COMMANDS, argv), '--help'])})")
        sys.exit(2)
    except (ValueError, OSError) as error:
        say(f"mmsr: error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
