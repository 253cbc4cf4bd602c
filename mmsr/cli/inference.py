"""The commands of inference: `mmsr predict`, `transcribe`, `timeline` and `app`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mmsr.cli.application import FLAT, Count, Number, Pairs, SegmentFlags
from mmsr.cli.console import check_page, must_be_there, print_json
from mmsr.extras import check_installed
from mmsr.files import check_output
from mmsr.messages import no_such_file
from mmsr.model.packaged import DEFAULT
from mmsr.progress import ProgressLines, log, show_progress
from mmsr.records import Prediction

if TYPE_CHECKING:
    from mmsr.data.audio.decoding import AudioError
    from mmsr.data.manifest.issues import Issue


def predict(
    *inputs: str,
    text: str | None = None,
    model: str = DEFAULT,
    audio: str | None = None,
    manifest: str | None = None,
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    text_column: Literal["text", "asr_text"] = "text",
    out: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    force_label: str | None = None,
    alternatives: bool = False,
    html: str | None = None,
    abstain_below: float | None = None,
    num_beams: Count = 1,
    num_candidates: Count = 1,
    seed: Number = 0,
    batch_size: Count = 32,
    json: bool = False,
) -> None:
    """Predict label and probabilities of recordings, a transcript, or the rows of a manifest.

    A model with a decoder, or one that names its evidence as base does, writes a rationale too. Of several
    recordings or rows, those that cannot be read are named at the end, the others are answered, and the exit
    code is 1. A single recording that cannot be read is an error, with exit code 2.

    Example: mmsr predict speech.wav --text "thank you so much doctor" --model runs/demo/model
    Example: mmsr predict recordings/ --asr openai/whisper-base --out answers.csv
    Example: mmsr predict my/manifest.csv --out my/predictions.jsonl

    Args:
        inputs: Audio files, in any format that FFmpeg decodes (wav, flac and ogg without the extra av);
            folders of them; or one manifest.
        text: Transcript of the recording, or an utterance without audio.
        model: Folder or Hub id of a checkpoint, or the name of a packaged one: base, of human speech and
            text, or demo, a toy with a decoder. base is not the size of `mmsr fit --model.preset
            base`.
        audio: An audio file; the same as an input.
        manifest: Table of utterances, or the id of a dataset on the Hub; the same as an input.
        columns: Names that columns have in this manifest, such as text=transcript.
        label_map: Names that labels have in this manifest, such as pos=positive.
        text_column: Transcript that the model reads, the human one or the ASR's.
        out: File to write. Of recordings a table (csv, tsv, jsonl, parquet, xlsx) with a row for each;
            after an interruption the same command continues. Of a manifest the predictions with its columns,
            one JSON object a line (jsonl), or such a table.
        asr: Folder or Hub id of a recogniser, which transcribes recordings; for a manifest there is
            `mmsr transcribe`.
        language: Spoken language, such as vi, for --asr; by default it is detected.
        force_label: Explain this label instead of the predicted one.
        alternatives: Write the rationales under the other labels too.
        html: Page to write: sound, words and moments coloured by attention, probabilities, rationales.
        abstain_below: Mark answers whose label is less probable than this, such as 0.6: they keep the label
            and have `abstained` true, the others false.
        num_beams: Beams of the rationale's generation.
        num_candidates: Write this many rationales, sampled but for the first, and keep the one most like all
            of them (minimum Bayes risk by ROUGE-L).
        seed: Seed of sampled rationales.
        batch_size: Number of recordings or rows in a batch.
        json: Print JSON instead of text, an object a line.
    """
    manifest, recordings = input_kinds(inputs, manifest=manifest, audio=audio)
    if manifest is None and not recordings and text is None:
        raise ValueError("give recordings, a manifest or --text; inputs stand before lists, or after --")
    if manifest is not None:
        _refuse_with("a manifest", text=text, asr=asr, alternatives=alternatives, html=html)
        _check_out(out, manifest)
    elif out is not None:
        _check_table(out, recordings, text=text, other_output=html is not None or json)
    _check_words(recordings, text=text, asr=asr, language=language)
    check_page(*recordings, html=html)
    if abstain_below is not None and not 0 < abstain_below <= 1:
        raise ValueError(f"--abstain-below {abstain_below:g}; accepted: a probability, above 0, to 1")
    from mmsr.inference.loading import load_pipeline
    from mmsr.inference.predict import (
        answer_utterances,
        find_recordings,
        predict_manifest,
        write_answers,
    )

    recordings = find_recordings(recordings)
    if len(recordings) > 1:
        _refuse_with(f"{len(recordings)} recordings", text=text, html=html)
        log(f"loading {model}, to answer {len(recordings):,} recordings, {batch_size} at a time ...")
    pipe = load_pipeline(model)
    if force_label is not None:
        pipe.processor.label_id(force_label)
    settings: dict[str, Any] = {"forced_label": force_label, "num_beams": num_beams, "batch_size": batch_size}
    settings |= {"num_candidates": num_candidates, "seed": seed} if num_candidates > 1 else {}
    settings["abstain_below"] = abstain_below
    if manifest is not None:
        reading: dict[str, Any] = {"columns": columns, "label_map": label_map, "text_column": text_column}
        issues: list[Issue] = []
        predictions = predict_manifest(
            pipe, manifest, on_issue=issues.append, progress=show_progress(), **settings, **reading
        )
        _write_predictions(predictions, out)
        _end_with_unanswered(issues)
        return
    if out is not None:
        settings["alternatives"] = alternatives or None
        unread = write_answers(
            pipe, recordings, out, asr=asr, language=language, progress=show_progress(), **settings
        )
        _tell_written(recordings, unread, out)
        _end_with_unanswered(unread)
        return
    utterances = [{"audio": path, "text": text, "language": language} for path in recordings or (None,)]
    answers = answer_utterances(pipe, utterances, page=html, asr=asr, alternatives=alternatives, **settings)
    _print_answers(utterances, answers, json=json)
    if html is not None:
        log(f"page: {html}")


def transcribe(
    manifest: str,
    *,
    asr: str,
    out: str,
    language: str | None = None,
    split: str | None = None,
    speakers: list[str] | None = None,
    columns: Pairs | None = None,
    timestamps: Literal["none", "segment", "word"] = "none",
    batch_size: Count = 8,
    num_beams: Count = 1,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    keep_going: bool = False,
    json: bool = False,
) -> None:
    """Fill a manifest's column asr_text by a speech recogniser; print error rates where `text` is known.

    Writes a copy of the manifest. OUT.journal.jsonl beside it grows with every batch: after an interruption,
    or with new rows, the same command continues from there.

    Example: mmsr transcribe my/manifest.csv --asr openai/whisper-base --out my/heard.csv

    Args:
        manifest: Table of utterances with audio.
        asr: Folder or Hub id of a recogniser: Whisper, Moonshine, wav2vec2 with CTC, MMS ...
        out: Copy to write; csv, tsv, jsonl, parquet or xlsx by its ending.
        language: Language of every row, such as vi, or `detect`; by default that of each row, detected where
            it has none.
        split: Transcribe only the rows of this split; the others keep their asr_text.
        speakers: Transcribe only the rows of these speakers, such as anna ben.
        columns: Names that columns have in this manifest, such as text=transcript.
        timestamps: Write words or segments with their times to OUT.words.jsonl; words also to the column
            asr_words, by which answers tell when quoted words were said.
        batch_size: Number of rows in a batch.
        num_beams: Beams of the recogniser, if it has a decoder.
        dtype: Precision; auto is bfloat16 if the processor computes in it.
        keep_going: Leave rows with faulty audio without a transcript.
        json: Print the error rates as JSON.
    """
    must_be_there(manifest=manifest)
    from mmsr.data.manifest.tables import check_table_output
    from mmsr.evaluation.error_rates import markdown_table
    from mmsr.speech.recogniser import Transcriber
    from mmsr.speech.transcribe import transcribe_manifest

    check_table_output(Path(out), inputs=[manifest])  # before the recogniser is loaded
    done = transcribe_manifest(
        manifest,
        Transcriber(asr, timestamps=timestamps, batch_size=batch_size, num_beams=num_beams, dtype=dtype),
        out,
        language=language,
        split=split,
        speakers=speakers,
        columns=columns,
        keep_going=keep_going,
        progress=show_progress(),
    )
    for issue in done.issues:
        log(f"left without a transcript: {issue}")
    new, known = f"{done.transcribed:,} utterances transcribed", f"{done.known:,} known"
    log(f"{new}, {known} from {out}.journal.jsonl -> {out}")
    rates = done.error_rates()
    if rates is None:
        log("no row has a human transcript (column text): no error rates")
    else:
        print_json(rates) if json else print(markdown_table(rates))


def timeline(
    audio: str,
    *,
    model: str = DEFAULT,
    out: str | None = None,
    turns: str | None = None,
    transcript: str | None = None,
    encoding: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    cut: Annotated[SegmentFlags | None, FLAT] = None,
    smooth: float = 0.0,
    player: Literal["auto", "inline", "beside", "link", "none"] = "auto",
    batch_size: Count = 16,
    num_beams: Count = 1,
    json: bool = False,
) -> None:
    """Cut a whole recording into segments of speech, each with its time, transcript and label.

    A model with a decoder, or one that names its evidence as base does, writes the rationale of each.

    Writes JSONL, CSV, SRT, VTT, an HTML page with a player, and a summary. OUT.journal.jsonl (in a folder:
    timeline.journal.jsonl) grows with every batch: after an interruption the same command continues from
    there. A recording without speech has an empty timeline.

    Example: mmsr timeline consultation.wav
    Example: mmsr timeline consultation.wav --model runs/demo/model --out timeline.srt

    Args:
        audio: The recording, of any length, in any format that FFmpeg decodes (wav, flac and ogg without
            the extra av).
        model: Folder or Hub id of a checkpoint, or the name of a packaged one: base, of human speech and
            text, or demo, a toy with a decoder. base is not the size of `mmsr fit --model.preset
            base`.
        out: Folder for all forms, or one file: .jsonl, .csv, .srt, .vtt or .html. By default a folder here
            with the recording's name, without its ending.
        turns: RTTM file with the speakers' turns, which replace the segments of silero-vad.
        transcript: Words with times: subtitles (.srt, .vtt, .sbv, .ass), a table with columns start, end and
            text, Audacity's labels (.txt), or whisper's .tsv or .json.
        encoding: Encoding of the transcript and the turns, such as gb18030, where it is not found.
        asr: Folder or Hub id of a recogniser, which transcribes each segment.
        language: Spoken language, such as vi, for --asr, which by default detects it for each segment; or of
            the transcript, to find its encoding.
        cut: How speech is cut.
        smooth: Average each speaker's probabilities over time by a Gaussian of this many seconds.
        player: Sound of the page: inside the page, an MP3 beside it, a link to the recording, or none; auto
            is inside up to ten minutes, and beside the page from there.
        batch_size: Number of segments in a batch.
        num_beams: Beams of the rationale's generation.
        json: Print the summary as JSON instead of text.
    """
    for flag, path in (("audio", audio), ("turns", turns), ("transcript", transcript)):
        if path is not None and "://" not in path and not os.path.isfile(path):
            there = f"{path}: {'a folder' if os.path.isdir(path) else 'is no file'}"
            fault = there if os.path.lexists(path) else no_such_file(path)
            raise ValueError(f"--{flag} {fault}; accepted: one file")
    if asr is not None and transcript is not None:
        raise ValueError("give --asr or --transcript, or neither: both tell the words")
    if language is not None and asr is None and transcript is None:
        raise ValueError(f"--language {language} is for the recogniser: give --asr too")
    if encoding is not None and transcript is None and turns is None:
        raise ValueError(f"--encoding {encoding} is of a transcript: give --transcript or --turns too")
    if smooth < 0:
        raise ValueError(f"--smooth {smooth:g}; accepted: seconds above 0, or 0 for none")
    from mmsr.data.audio.segments import Segmentation
    from mmsr.inference.timeline.formats import as_text
    from mmsr.inference.timeline.run import run_timeline

    made, written = run_timeline(
        audio,
        model=model,
        out=out,
        turns=turns,
        transcript=transcript,
        encoding=encoding,
        asr=asr,
        language=language,
        settings=Segmentation(**vars(cut or SegmentFlags())),
        smooth=smooth,
        player=player,
        batch_size=batch_size,
        num_beams=num_beams,
        progress=show_progress(),
    )
    if not made.segments:
        log(f"no speech found in the {made.seconds:.1f} s of {audio}: the timeline is empty")
    print_json(made.summary()) if json else print(as_text(made.summary()))
    log(f"timeline: {', '.join(map(str, written))}")


def app(
    *,
    model: str = DEFAULT,
    port: int | None = None,
    asr: str | None = None,
    share: bool = False,
    max_seconds: float = 60.0,
    max_megabytes: float = 20.0,
    max_timeline_seconds: float = 600.0,
) -> None:
    """Serve a web page to try a model on: speech in; label, probabilities and attention out.

    A model with a decoder, or one that names its evidence as base does, writes the rationale.

    A second tab makes the timeline of a whole recording, and its files. A third tab shows the API.

    The page answers this machine alone (GRADIO_SERVER_NAME=0.0.0.0 opens it to the network), one request at
    a time, and deletes uploads after an hour, or when it ends. Ctrl-C ends it.

    Example: mmsr app --model runs/demo/model --asr openai/whisper-base

    Args:
        model: Folder or Hub id of a checkpoint, or the name of a packaged one: base, of human speech and
            text, or demo, a toy with a decoder. base is not the size of `mmsr fit --model.preset
            base`.
        port: Port of the page; by default the first free one from 7860 on.
        asr: Folder or Hub id of a recogniser, which transcribes utterances and timelines.
        share: Also give it a public address for a week, through gradio.live.
        max_seconds: Longest utterance that is accepted.
        max_megabytes: Largest file that is accepted.
        max_timeline_seconds: Longest recording that is accepted for a timeline.
    """
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"--port {port}; accepted: 1 to 65535")
    # gradio reads it as it is imported, and then sends no statistics
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    check_installed("the web page", "gradio")
    from mmsr.inference.loading import load_pipeline
    from mmsr.serving.app import Limits, launch, make_app, uploads_folder

    limits = Limits(seconds=max_seconds, megabytes=max_megabytes, timeline_seconds=max_timeline_seconds)
    recogniser = None
    if asr is not None:
        from mmsr.speech.recogniser import Transcriber

        recogniser = Transcriber(asr, timestamps="auto")
    pipe = load_pipeline(model)
    with uploads_folder():
        page = make_app(pipe, transcribe=recogniser, limits=limits, name=Path(model).name)
        log(f"open {launch(page, port=port, share=share, megabytes=max_megabytes)} (Ctrl-C ends it)")
        page.block_thread()


# ---------------------------------------------------------------------- helpers of predict


def input_kinds(
    inputs: Sequence[str], *, manifest: str | None, audio: str | None
) -> tuple[str | None, list[str]]:
    """The manifest, or the recordings, among the inputs, --manifest and --audio."""
    if audio is not None and not os.path.isfile(audio):
        what = f"{audio}: a folder" if os.path.isdir(audio) else no_such_file(audio)
        raise ValueError(f"--audio {what}; accepted: an audio file, or --manifest for many")
    if manifest is not None:
        must_be_there(manifest=manifest)
    manifests: list[str] = []
    if inputs:  # tables are slow to import
        from mmsr.data.manifest.tables import ENDINGS

        manifests = [path for path in inputs if Path(path).suffix.lower() in ENDINGS]
    recordings = [path for path in inputs if path not in manifests]
    manifests += [] if manifest is None else [manifest]
    recordings += [] if audio is None else [audio]
    if manifests and len(manifests) + len(recordings) > 1:
        raise ValueError(f"{manifests[0]} is a manifest; accepted: one manifest alone, or recordings")
    return (manifests[0], []) if manifests else (None, recordings)


def _refuse_with(what: str, **flags: object) -> None:
    """Refuse flags that do not go with the inputs."""
    for flag, value in flags.items():
        if value:
            raise ValueError(f"--{flag} with {what}; accepted: with a recording or --text, or without it")


def _check_out(out: str | None, manifest: str) -> None:
    """Refuse a file for predictions that cannot be written, or has the ending of a recording or a table."""
    from mmsr.data.corpora.source import SOUND, VIDEO
    from mmsr.data.manifest.tables import ENDINGS, check_table_output

    if out is None:
        return
    ending = Path(out).suffix.lower()
    if ending in {*SOUND, *VIDEO}:
        raise ValueError(f"--out {out} has the ending of a recording; accepted: {', '.join(ENDINGS)}")
    check_output(out, inputs=[manifest], name="--out")
    if ending in ENDINGS:
        check_table_output(Path(out))


def _check_table(out: str, recordings: Sequence[str], *, text: str | None, other_output: bool) -> None:
    """Refuse a table of answers without recordings, beside other output, or that cannot be written."""
    if text is not None or not recordings:
        raise ValueError(
            f"--out {out} is a table of recordings; accepted: recordings or a manifest, no --text"
        )
    if other_output:
        raise ValueError(f"--out {out} beside --html or --json; accepted: one of them")
    from mmsr.data.manifest.tables import check_table_output

    check_table_output(Path(out), inputs=recordings)


def _check_words(
    recordings: Sequence[str], *, text: str | None, asr: str | None, language: str | None
) -> None:
    """Refuse an empty transcript, and a recogniser with nothing to transcribe."""
    if text is not None and not text.strip():
        raise ValueError(f"--text {text!r} is empty; accepted: words, or no --text for audio alone")
    if asr is not None and (not recordings or text is not None):
        raise ValueError(f"--asr {asr} writes transcripts of recordings; accepted: recordings, and no --text")
    if language is not None and asr is None:
        raise ValueError(f"--language {language} is for a recogniser; accepted: with --asr")


def _write_predictions(predictions: Sequence[Prediction], out: str | None) -> None:
    """Write predictions to a file, or print them."""
    from mmsr.data.manifest.tables import ENDINGS, write_table
    from mmsr.evaluation.run import prediction_lines
    from mmsr.files import write_file

    abstained = [row.abstained for row in predictions if row.abstained is not None]
    if abstained:
        log(f"abstained from {sum(abstained):,} of {len(abstained):,}")
    if out is not None and Path(out).suffix.lower() in {*ENDINGS} - {".jsonl"}:
        from mmsr.inference.predict import answer_table

        write_table(Path(out), answer_table([row.to_row() for row in predictions]))
        log(f"{len(predictions)} predictions -> {out}")
        return
    lines = prediction_lines(predictions)
    if out is None:
        print(lines, end="")
    else:
        write_file(Path(out), lines.encode())
        log(f"{len(predictions)} predictions -> {out}")


def _tell_written(recordings: Sequence[str], unread: Sequence[AudioError], out: str) -> None:
    """Tell how many recordings a table answers, and how many are longer than an utterance."""
    from mmsr.inference.predict import count_long

    log(f"{len(recordings) - len(unread):,} of {len(recordings):,} recordings -> {out}")
    if count := count_long(recordings):
        log(
            f"recordings longer than an utterance, with one answer each: {count:,}; `mmsr timeline` "
            "answers for each segment of speech"
        )


def _end_with_unanswered(problems: Sequence[Issue | AudioError]) -> None:
    """Tell which inputs have no answer, and exit with 1 if there are any."""
    for problem in problems:
        log(f"left without an answer: {problem}")
    if problems:
        sys.exit(1)


def _print_answers(
    utterances: Sequence[Mapping[str, Any]], answers: Iterable[dict[str, Any] | AudioError], *, json: bool
) -> None:
    """Print each answer; end with what has none. The only one that cannot be read is an error."""
    from mmsr.data.audio.decoding import AudioError

    unanswered: list[AudioError] = []
    progress = ProgressLines()  # a bar would be drawn over the answers
    for done, (utterance, answer) in enumerate(zip(utterances, answers, strict=True), start=1):
        progress("answering", done, len(utterances))
        if not isinstance(answer, AudioError):
            _print_answer(answer, utterance["audio"], named=len(utterances) > 1, json=json)
        elif len(utterances) == 1:
            raise answer
        else:
            unanswered.append(answer)
    _end_with_unanswered(unanswered)


def _print_answer(answer: dict[str, Any], audio: str | None, *, named: bool, json: bool) -> None:
    """Print an answer and notes on its recording; `named` adds the recording's path."""
    from mmsr.data.storage import shown
    from mmsr.inference.predict import recording_notes

    if json:
        print_json({"audio": audio} | answer if named else answer)
    else:
        print(f"{shown(audio or '')}\n{format_answer(answer)}" if named else format_answer(answer))
    for note in () if audio is None else recording_notes(audio):
        log(note)


def format_answer(answer: Mapping[str, Any]) -> str:
    """An answer as lines for a person."""
    from mmsr.model.outliers import OUTLIER_REASONS

    scores = "  ".join(f"{label} {score:.2f}" for label, score in answer["scores"].items())
    because = f": {answer['abstained_because']}" if answer.get("abstained_because") else ""
    abstained = f", abstained{because}" if answer.get("abstained") else ""
    lines = [f"  label: {answer['label']} ({answer['score']:.2f}){abstained}", f"  scores: {scores}"]
    if answer["rationale"] is not None:
        forced = f" (if it were {answer['forced_label']})" if "forced_label" in answer else ""
        lines.append(f"  rationale{forced}: {answer['rationale']}")
    if not because:
        left_out = [OUTLIER_REASONS[name] for name in answer.get("outliers", ())]
        lines += [f"  answered from the rest alone: {reason}" for reason in left_out]
    if "speech_seconds" in answer:
        lines.append(f"  speech: {answer['speech_seconds']:.1f} of {answer['audio_seconds']:.1f} s")
    if "transcript" in answer:
        lines.insert(0, f"  heard: {answer['transcript'] or 'no words'}")
    for label, rationale in answer.get("alternatives", {}).items():
        lines.append(f"  rationale (if it were {label}): {rationale}")
    return "\n".join(lines)
