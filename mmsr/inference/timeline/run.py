"""From a recording's files to its timeline's files, as `mmsr timeline` does."""

from __future__ import annotations

import os
from pathlib import Path

from mmsr.data.audio.segments import Segmentation
from mmsr.inference.loading import load_pipeline
from mmsr.inference.timeline.formats import FORMATS, Player, output_files, write_timeline
from mmsr.inference.timeline.make import Progress, Timeline, make_timeline
from mmsr.inference.timeline.transcripts import read_cues, read_turns
from mmsr.model.packaged import DEFAULT


def run_timeline(
    audio: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT,
    out: str | os.PathLike[str] | None = None,
    turns: str | os.PathLike[str] | None = None,
    transcript: str | os.PathLike[str] | None = None,
    encoding: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    settings: Segmentation | None = None,
    smooth: float = 0.0,
    player: Player = "auto",
    batch_size: int = 16,
    num_beams: int = 1,
    progress: Progress | None = None,
) -> tuple[Timeline, list[Path]]:
    """Make the timeline of a recording and write it; a killed run is resumed from its journal.

    Args:
        audio: Path or URL of the recording.
        model: See `load_pipeline`.
        out: See `write_timeline`; by default a folder here with the recording's name.
        turns: RTTM file with the speakers' turns.
        transcript: Words with times; see `read_cues`.
        encoding: Of the transcript and the turns; see `decode_text`.
        asr: Folder or Hub id of a recogniser, in place of a transcript.
        language: The spoken language, for the recogniser, or to tell encodings of the transcript apart.
        settings: How speech is cut.
        smooth: Seconds of `Timeline.smoothed`; 0 for none.
        player: See `write_timeline`.
        batch_size: Segments at a time.
        num_beams: Beams of the rationale's generation.
        progress: Called with task, done and total.

    Returns:
        The timeline and its files.

    Raises:
        ValueError: An input is wrong, or `out` cannot be written; see `make_timeline` and `output_files`.
    """
    audio = os.fspath(audio)
    out = _default_folder(audio) if out is None else out
    inputs = [path for path in (audio, turns, transcript) if path is not None]
    first, *others = output_files(out, audio=audio, player=player, inputs=inputs)
    journal = first.with_name(f"{first.stem if others else first.name}.journal.jsonl")
    names = (first.stem, *(first.stem + form for form in FORMATS))  # a folder's, and those of single files
    journals = [first.with_name(f"{name}.journal.jsonl") for name in names]
    # before a model is loaded, since these files may have errors
    name = Path(audio).stem
    given_turns = None if turns is None else read_turns(turns, recording=name, encoding=encoding)
    cues = None if transcript is None else read_cues(transcript, language=language, encoding=encoding)
    recogniser = None
    if asr is not None:
        from mmsr.speech.recogniser import Transcriber

        recogniser = Transcriber(asr, language=language, timestamps="auto", batch_size=batch_size)
    timeline = make_timeline(
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
        other_journals=[path for path in journals if path != journal],
        progress=progress,
    )
    if smooth:
        timeline = timeline.smoothed(smooth)
    return timeline, write_timeline(timeline, out, player=player, progress=progress)


def _default_folder(audio: str) -> Path:
    """The default folder of a recording's timeline."""
    folder = Path(Path(audio).stem)
    if folder.exists() and not any(folder.glob("timeline.*")):
        raise ValueError(f"{folder}/ is there and holds no timeline; accepted: --out with another folder")
    return folder
