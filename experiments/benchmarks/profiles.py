"""Where the time of a training step and of an answer goes, as a picture.

    python experiments/benchmarks/profiles.py

Writes docs/figures/profile.svg, and prints its numbers. The training step is of wav2vec2-base and
XLM-R-base shapes with cross-attention and a decoder (random weights, four clips of 1 to 15 s); the answers
are of the packaged checkpoints, one clip of about 3 s with its words at a time. A part's time is its own,
without that of the parts inside it.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from material import corpus, mixed_clips, write_clips
from matplotlib.figure import Figure
from torch import nn
from transformers import AutoConfig

from mmsr.data.audio.decoding import Audio
from mmsr.data.loading.utterances import Collator, LoadedUtterance
from mmsr.evaluation.report.pictures import make_figure, rendered
from mmsr.files import write_file
from mmsr.inference.loading import load_pipeline
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.presets import SHAPES
from mmsr.model.processing import MmsrProcessor
from mmsr.model.quotes import QuoteGrammar
from mmsr.training.run import is_bf16, mixed_precision

FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "profile.svg"
REST = "the rest"
Seconds = dict[str, float]


class Clock:
    """Seconds of parts that may be nested; each second counts for the innermost part."""

    def __init__(self) -> None:
        self.seconds: Seconds = defaultdict(float)
        self._parts = [REST]
        self._last = time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._parts[-1]] += now - self._last
        self._last = now

    def enter(self, part: str) -> None:
        """The time from here on is the part's."""
        self._switch()
        self._parts.append(part)

    def leave(self) -> None:
        """The time from here on is that of the part around it."""
        self._switch()
        self._parts.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def watch(self, module: nn.Module, name: str) -> None:
        """Time the forward passes of a module."""
        module.register_forward_pre_hook(lambda *_: self.enter(name))
        module.register_forward_hook(lambda *_: self.leave())

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return called

    def restart(self) -> None:
        """Forget what was timed."""
        self.seconds.clear()
        self._last = time.perf_counter()

    def read(self) -> Seconds:
        """Seconds until now, by part."""
        self._switch()
        return dict(self.seconds)


def watch_model(clock: Clock, model: MmsrForSentimentReasoning) -> None:
    """Time the parts of a model."""
    encoder = model.encoder
    clock.watch(encoder.audio_encoder, "audio encoder")
    clock.watch(encoder.text_encoder, "text encoder")
    for part in (encoder.audio_stream, encoder.text_stream, encoder.fusion, model.sentiment_head):
        clock.watch(part, "fusion and head")
    if model.decoder is not None:
        clock.watch(model.decoder, "decoder")


def training(steps: int) -> Seconds:
    """Seconds of a step, by part."""
    torch.manual_seed(0)
    clips = mixed_clips(4 * (steps + 1), seed=11, longest=15.0)
    texts = [clip.text for clip in clips]
    processor = MmsrProcessor.train(texts * 2, vocab_size=400)
    settings = {**processor.config_kwargs(), "label_token_ids": processor.label_token_ids}
    config: Any = MmsrConfig.from_preset("base", vocab_size=len(processor.tokenizer), **settings)
    config.audio_encoder = AutoConfig.for_model("wav2vec2", **SHAPES["base"]["audio_encoder"])
    model = MmsrForSentimentReasoning(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    collate = Collator(processor)
    clock = Clock()
    watch_model(clock, model)
    clips.sort(key=lambda clip: clip.seconds)  # batches of similar length, as in training
    found: list[Seconds] = []
    with tempfile.TemporaryDirectory(prefix="mmsr-profile-") as folder:
        paths, load = write_clips(clips, Path(folder)), Audio()
        for step in range(steps + 1):
            clock.restart()
            with clock.part("files to a batch"):
                batch = collate(
                    [
                        LoadedUtterance(
                            str(row), clips[row].text, "so it is", clips[row].label, audio=load(paths[row])
                        )
                        for row in range(4 * step, 4 * step + 4)
                    ]
                )
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16()):
                loss = model(**batch, use_cache=False).loss
            with clock.part("backward"):
                loss.backward()
            with clock.part("optimiser"):
                optimizer.step()
                optimizer.zero_grad()
            if step:  # the first one warms up
                found.append(clock.read())
    return _mean(found)


def answering(name: str, answers: int) -> Seconds:
    """Seconds of an answer of a packaged checkpoint, by part."""
    pipe = load_pipeline(name)
    clock = Clock()
    watch_model(clock, pipe.model)
    grammar = QuoteGrammar.__call__
    QuoteGrammar.__call__ = clock.timed(grammar, "grammar of quotations")  # type: ignore[method-assign]
    clips = corpus(answers + 3, seed=21)
    try:
        with tempfile.TemporaryDirectory(prefix="mmsr-profile-") as folder:
            paths, load = write_clips(clips, Path(folder)), Audio()
            found: list[Seconds] = []
            for row, (path, clip) in enumerate(zip(paths, clips, strict=True)):
                clock.restart()
                with clock.part("file"):
                    wave = load(path)
                pipe({"audio": wave, "text": clip.text}, speech=False)
                if row >= 3:
                    found.append(clock.read())
    finally:
        QuoteGrammar.__call__ = grammar  # type: ignore[method-assign]
    return _mean(found)


def _mean(found: list[Seconds]) -> Seconds:
    parts = {part for one in found for part in one}
    return {part: sum(one.get(part, 0.0) for one in found) / len(found) for part in parts}


def draw(profiles: dict[str, Seconds]) -> Figure:
    """Each profile as a bar of shares, the largest parts named."""
    parts = sorted(
        {part for seconds in profiles.values() for part in seconds},
        key=lambda part: (part == REST, -sum(seconds.get(part, 0.0) for seconds in profiles.values())),
    )
    figure, (axes,) = make_figure(1, width=9.0, height=1.4 + 0.7 * len(profiles))
    for number, part in enumerate(parts):
        shares = [100 * seconds.get(part, 0.0) / sum(seconds.values()) for seconds in profiles.values()]
        before = [
            sum(100 * seconds.get(one, 0.0) for one in parts[:number]) / sum(seconds.values())
            for seconds in profiles.values()
        ]
        colour = "lightgrey" if part == REST else f"C{number}"
        axes.barh(range(len(profiles)), shares, left=before, color=colour, height=0.6, label=part)
        for place, (share, left) in enumerate(zip(shares, before, strict=True)):
            if share >= 4:
                ink = "black" if part == REST else "white"
                axes.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", color=ink)
    axes.set_yticks(range(len(profiles)), list(profiles))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the time")
    figure.legend(loc="outside upper center", ncols=5, fontsize=9, frameon=False)
    return figure


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--out", type=Path, default=FIGURE)
    args = parser.parse_args()
    found = {"training step": training(args.steps)}
    found |= {name: answering(name, args.answers) for name in ("base", "demo")}
    profiles = {}
    for name, seconds in found.items():
        total = sum(seconds.values())
        shown = f"{total:.1f} s" if total >= 1 else f"{1000 * total:.0f} ms"
        profiles[f"{name}, {shown}" if name == "training step" else f"answer of {name}, {shown}"] = seconds
        shares = sorted(((value / total, part) for part, value in seconds.items()), reverse=True)
        print(f"{name}: {shown}: {', '.join(f'{part} {share:.0%}' for share, part in shares)}")
    print(f"precision of the step: {mixed_precision()}; threads: {torch.get_num_threads()}", file=sys.stderr)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{part} {1000 * value:.0f} ms" for part, value in seconds.items())
        for name, seconds in profiles.items()
    )
    write_file(args.out, rendered(lambda: draw(profiles), name="profile", description=told).svg)


if __name__ == "__main__":
    main()
