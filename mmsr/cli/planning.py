"""The command `mmsr plan`: how long a job takes on this machine, before it is started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from mmsr.cli.application import Count, Pairs, at_least
from mmsr.cli.console import must_be_there, print_json
from mmsr.cli.inference import input_kinds
from mmsr.files import check_output
from mmsr.messages import did_you_mean
from mmsr.model.packaged import DEFAULT
from mmsr.progress import log

_FLAGS = (
    "--hours --config --model --asr --language --timeline --alternatives --seconds --columns --num-beams "
    "--batch-size --calibrate --out --json"
).split()

_BEGUN = "loading, and timing parts of the job for {:.0f} s, or until the fewest batches are timed ..."


def plan(
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    hours: Annotated[float | None, at_least(0.001)] = None,
    config: Annotated[str | None, Parameter(alias="-c")] = None,
    model: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    timeline: bool = False,
    alternatives: bool = False,
    seconds: Annotated[float | None, at_least(0.1)] = None,
    columns: Pairs | None = None,
    num_beams: Count = 1,
    batch_size: Count | None = None,
    calibrate: Annotated[float, at_least(1)] = 60.0,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Tell time, memory and disk of a job on this machine, from parts of it that are timed for a minute.

    Answers: give what `mmsr predict` or `mmsr timeline` would get, or the hours of audio alone. A training or
    an ablation: give its YAML file, and settings over it as for `mmsr fit`. The manifest may be a sample of
    the rows: --hours then tells the hours of all training rows.

    The clock's time is that of a machine as busy as it is now. On one with nothing else to do, it comes near
    the processor time divided by the threads.

    Example: mmsr plan --hours 100 --model base
    Example: mmsr plan recordings/ --asr openai/whisper-base
    Example: mmsr plan -c own.yaml --data.manifest my/manifest.csv --trainer.max_epochs 20

    Args:
        inputs: Audio files, folders of them, or one manifest; by default clips of the package stand for
            them. With -c: settings, such as --data.manifest M.
        hours: Hours of audio of the job; by default what the inputs have.
        config: YAML file of a training or an ablation.
        model: Folder or Hub id of a checkpoint, or the name of a packaged one: base (the default) or demo.
        asr: Folder or Hub id of a recogniser, which transcribes the recordings.
        language: Spoken language, such as vi, for --asr; by default it is detected.
        timeline: Make a timeline of each recording, instead of one answer.
        alternatives: Write the rationales under the other labels too.
        seconds: Mean length of an utterance, or with --timeline of a recording, to which the audio is cut and
            joined. By default that of the inputs; without inputs 5, or one recording.
        columns: Names that columns have in this manifest, such as text=transcript.
        num_beams: Beams of the rationale's generation.
        batch_size: Utterances in a batch; by default 32, or 16 segments of a timeline.
        calibrate: Seconds for timing, beyond those for loading: more make it surer. What is timed in any case
            may take longer: the largest batch and two quarters of one, three pieces of timelines, or a
            training's five batches and three of development rows, of each variant of an ablation, and again
            with a feature store.
        out: JSON file to write too.
        json: Print JSON instead of a table; seconds and bytes.
    """
    if out is not None:
        check_output(out, inputs=inputs, name="--out")
    if config is not None:
        refused = {
            "model": model, "asr": asr, "language": language, "timeline": timeline, "seconds": seconds,
            "alternatives": alternatives, "columns": columns,
        }  # fmt: skip
        for name, value in refused.items():
            if value:
                raise ValueError(f"--{name} with -c {config}; accepted: settings of `mmsr fit`, and --hours")
        from mmsr.ablation.estimate import estimate_config

        log(_BEGUN.format(calibrate))
        estimate = estimate_config(config, inputs, hours=hours, calibrate=calibrate)
    else:
        manifest, recordings = _answered(inputs, more=asr is not None or timeline or alternatives)
        if not inputs and hours is None:
            raise ValueError("give recordings, a manifest, --hours H, or -c FILE (mmsr plan --help)")
        from mmsr.workflows.estimates.inference import Answers, estimate_inference

        log(_BEGUN.format(calibrate))
        estimate = estimate_inference(
            recordings,
            Answers(
                model=model or DEFAULT,
                asr=asr,
                language=language,
                timeline=timeline,
                alternatives=alternatives,
                num_beams=num_beams,
                batch_size=batch_size,
            ),
            manifest=manifest,
            hours=hours,
            seconds=seconds,
            columns=columns,
            calibrate=calibrate,
        )
    if out is not None:
        estimate.write(out)
    print_json(estimate.to_dict()) if json else print(estimate.table())
    for line in estimate.conditions():
        log(line)


def _answered(inputs: Sequence[str], *, more: bool) -> tuple[str | None, list[str]]:
    """The manifest, or the recordings, to answer; `more` asks for more than answers, of recordings alone."""
    for word in inputs:
        if word.startswith("-"):
            name = word.partition("=")[0]
            hint = did_you_mean(name, _FLAGS) or "; settings of a training are given with -c FILE"
            raise ValueError(f"{word}: no such flag{hint} (mmsr plan --help)")
    manifest, recordings = input_kinds(inputs, manifest=None, audio=None)
    must_be_there(manifest=manifest)
    if manifest is not None and more:
        raise ValueError(
            f"{manifest} is a manifest, of which answers alone are planned; accepted: recordings with "
            "--asr, --timeline or --alternatives"
        )
    return manifest, recordings
