"""The pictures of reports, for light and dark pages, for print, and for colour-blind readers.

metrics ─► `draw_…` ─► matplotlib Figure ─► `rendered` ─► PNG for a README, SVG for a page
"""

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from mmsr.evaluation.calibration import aurc, calibration_error, reliability, risk_coverage
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.names import NAMES, RATIONALE_BASELINES, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmsr.evaluation.compare import Comparison
    from mmsr.evaluation.human.scores import Scores

BLUE, ORANGE, GREY = (
    "#0072B2",
    "#D55E00",
    "#8A8A8A",
)  # Okabe and Ito's, which colour-blind people can tell apart
LINES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",  # the face of its collection that matplotlib lists; it has the Chinese glyphs too
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Noto Serif CJK SC",
    "Noto Serif CJK JP",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "Unifont",
)
INK, PAPER = "#1c2024", "#fffffe"  # SVG takes the page's own colours instead
LABELLED_TOKENS = 40  # tokens that can be named beside an attention map
_THEME = (
    f"<style>:root{{color:{INK};--paper:#fff}}"
    "@media(prefers-color-scheme:dark){:root{color:#e8eaed;--paper:#15191d}}</style>"
)


class Attention(TypedDict):
    """The content of an attention picture."""

    weights: Any  # [text tokens, audio frames]
    tokens: Sequence[str]
    waveform: Any  # [samples]
    rate: int  # Hz


class Saliency(TypedDict):
    """The content of a saliency picture; weights are None for an absent modality."""

    words: Sequence[str]
    word_weights: Any  # [words]
    frame_weights: Any  # [frames], equally long
    waveform: Any  # [samples]
    rate: int  # Hz
    label: str


class Rendered(NamedTuple):
    """A picture as files: `png` on white, `svg` transparent and in the colours of the page."""

    png: bytes
    svg: bytes

    @property
    def uri(self) -> str:
        """The SVG as a data URI."""
        return data_uri(self.svg, "image/svg+xml")


def rendered(draw: Callable[[], "Figure"], *, name: str = "", description: str = "") -> Rendered:
    """Render a figure as PNG and SVG with a description; equal figures give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png, svg = BytesIO(), BytesIO()
    with rc_context(_style(name)):
        figure = draw()
        FigureCanvasAgg(figure).print_png(png, metadata={"Description": description})
        for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
            patch.set_alpha(0.0)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Description": description})
    text = svg.getvalue().decode()
    text = text.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    return Rendered(png.getvalue(), text.replace("<defs>", f"{_THEME}<defs>", 1).encode())


def as_pdf(draw: Callable[[], "Figure"]) -> bytes:
    """Render a figure as PDF with embedded fonts, for papers; equal figures give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    pdf = BytesIO()
    with rc_context({**_style(""), "pdf.fonttype": 42}):
        FigureCanvasPdf(draw()).print_pdf(pdf, metadata={"CreationDate": None})
    return pdf.getvalue()


def _style(salt: str) -> Any:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, INK),
        "font.family": _fonts(),
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": salt,
    }


def data_uri(content: bytes, mime: str) -> str:
    """A data URI with the content of a file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def draw_modalities(conditions: Mapping[str, Any]) -> "Figure":
    """Draw macro-F1 (with its interval) and ROUGE-L of each condition and baseline as bars."""
    rows = [(name, entry, BLUE) for name, entry in conditions.items() if name != "baselines"]
    rows += [(name, entry, GREY) for name, entry in conditions.get("baselines", {}).items()]
    panels = {"macro_f1": "macro-F1 (95 % interval)", "rougeL": "ROUGE-L, Unicode"}
    panels = {key: axis for key, axis in panels.items() if any(key in entry for _, entry, _ in rows)}
    figure, axes = make_figure(len(panels), width=4 + 3.2 * len(panels), height=1.2 + 0.36 * len(rows))
    for ax, (key, axis) in zip(axes, panels.items(), strict=True):
        for y, (name, entry, colour) in enumerate(rows):
            own = not (name in RATIONALE_BASELINES and METRICS[key].kind == "label")
            if key not in entry or not own:
                continue
            ax.barh(y, entry[key], color=colour, height=0.7)
            low, high = entry.get("interval", {}).get(key, (entry[key], entry[key]))
            if high > low:
                ax.plot([low, high], [y, y], color=INK, linewidth=1.5, marker="|", markersize=6)
            ax.text(max(high, entry[key]) + 0.02, y, f"{entry[key]:.3f}", va="center", fontsize=10)
        ax.set(xlim=(0, 1.15), xlabel=axis, xticks=[0, 0.25, 0.5, 0.75, 1])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks([])
    axes[0].set_yticks(range(len(rows)), [NAMES.get(name, name) for name, _, _ in rows])
    return figure


def draw_confusion(confusion: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> "Figure":
    """Draw a confusion matrix {gold: {predicted: count}}: counts, and each row's shares as shades."""
    counts = np.array([[confusion[gold][predicted] for predicted in labels] for gold in labels], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    side = 1.0 + 0.85 * len(labels)
    figure, (ax,) = make_figure(1, width=side + 2.0, height=side + 0.9)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (y, x), share in np.ndenumerate(shares):
        text = f"{counts[y, x]:.0f}\n{100 * share:.0f} %"
        ax.text(x, y, text, ha="center", va="center", color="white" if share > 0.55 else "black")
    names = [drawable(label, i) for i, label in enumerate(labels)]
    turned: dict[str, Any] = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(labels) > 3 else {}
    )
    ax.set_xticks(range(len(labels)), names, **turned)
    ax.set_yticks(range(len(labels)), names)
    ax.set(xlabel="predicted label", ylabel="true label")
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="share of the true label's rows", shrink=0.8)
    return figure


def draw_reliability(confidence: np.ndarray, correct: np.ndarray) -> "Figure":
    """Draw accuracy over confidence `[n]` in bins of equal size, with 95 % intervals, and a histogram."""
    from mmsr.evaluation.significance import wilson_interval

    bins = reliability(confidence, correct)
    figure, (ax, rows) = make_figure(2, width=5.4, height=5.6, heights=(4, 1))
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="calibrated")
    low, high = wilson_interval(bins.accuracy, bins.n)
    ax.vlines(bins.confidence, low, high, color=BLUE, linewidth=1.2, label="95 % interval")
    error = calibration_error(confidence, correct)
    ax.plot(bins.confidence, bins.accuracy, color=BLUE, marker="o", label=f"model (ECE {error:.3f})")
    ax.set(ylabel="accuracy (share of right answers)", xlim=(0, 1.02), ylim=(-0.02, 1.04))
    ax.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    rows.hist(confidence, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, alpha=0.6)
    rows.set(xlabel="confidence (probability of the predicted label)", ylabel="rows")
    return figure


def draw_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> "Figure":
    """Draw the share of wrong answers over the share of rows answered, the surest first."""
    figure, (ax,) = make_figure(1, width=5.4, height=4)
    lines = (
        ("model", confidence, BLUE, "-"),
        ("best order of the same answers", correct, GREY, "--"),
        ("random order", np.zeros(len(correct)), ORANGE, ":"),
    )
    top = 0.05
    for name, order, colour, style in lines:
        curve = risk_coverage(order, correct)
        area = f"{name} (AURC {aurc(order, correct):.3f})"
        ax.plot(curve.coverage, curve.risk, color=colour, linestyle=style, linewidth=2, label=area)
        top = max(top, 1.1 * float(curve.risk.max()))
    ax.set(
        xlabel="coverage (share of rows answered, surest first)",
        ylabel="risk (share of wrong answers)",
        xlim=(0, 1.02),
        ylim=(-0.02 * top, min(top, 1.04)),
    )
    ax.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize=9, loc="outside upper left")
    return figure


def training_panels(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns the lines of `draw_training`: {panel: {line: points (time, value)}}.

    A panel has the loss of training and development rows under one name, or the development metrics. Lines
    of fewer than two points, or of one value, are left out, and those that an earlier one covers.
    """
    # a run that is evaluated within epochs, such as one of a stream, is shown by steps
    time = "step" if len({row["epoch"] for row in history}) < len(history) else "epoch"
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    keys = dict.fromkeys(key for row in history for key in row)
    for key in sorted(keys, key=lambda key: not key.startswith("train_")):
        split, _, name = key.partition("_")
        points = [(row[time], row[key]) for row in history if row.get(key) is not None]
        if split not in ("train", "dev") or len(points) < 2 or np.ptp([value for _, value in points]) < 1e-9:
            continue
        panel, line = (name, split) if key.endswith("loss") else ("figure on development rows", name)
        lines = panels.setdefault(panel.replace("_", " "), {})
        if (split == "dev" or key.endswith("loss")) and points not in lines.values():
            lines[line.replace("_", " ")] = points
    panels = {panel: lines for panel, lines in panels.items() if lines}
    return dict(sorted(panels.items(), key=lambda panel: (not panel[0].endswith("loss"), len(panel[0]))))


def draw_training(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw each loss of training and development rows, and the development metrics, over time."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    panels = training_panels(history)
    figure, axes = make_figure(len(panels), width=3.9 * len(panels), height=3.3)
    for ax, (panel, lines) in zip(axes, panels.items(), strict=True):
        for i, (name, points) in enumerate(lines.items()):
            many = len(points) > 40
            style = _line_style(("train", "dev").index(name) if name in ("train", "dev") else i)
            style |= {"marker": "", "linewidth": 1.2} if many else {"markersize": 4}
            ax.plot(*zip(*points, strict=True), label=name, **style)
        values = np.array([value for points in lines.values() for _, value in points])
        if panel.endswith("loss"):
            _fit_losses(ax, values)
        if ax.get_yscale() == "log":
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel="step" if len({row["epoch"] for row in history}) < len(history) else "epoch")
        ax.set_title(panel, fontsize=11, loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", alpha=0.3)
        ax.legend(frameon=False, fontsize=9)
    return figure


def _fit_losses(ax: "Axes", values: np.ndarray) -> None:
    """Keep the first steps of a training from squashing the rest: a logarithmic axis, or a clipped one."""
    middle = float(np.median(values))
    if values.max() <= 4 * abs(middle):
        return
    if values.min() > 0:
        ax.set_yscale("log")
    else:
        low, quarter, three = np.quantile(values, [0, 0.25, 0.75])
        top = float(three + 3 * (three - quarter))
        ax.set_ylim(float(low) - 0.05 * (top - float(low)), top)


class Effect(NamedTuple):
    """A difference to draw."""

    name: str
    difference: float
    interval: Sequence[float]
    marked: bool  # it has a filled mark
    text: str = ""  # beside it, after its figures
    over_seeds: Sequence[float] | None = None  # a second interval


def draw_effects(effects: Sequence[Effect], *, label: str, legend: Sequence[str] = ()) -> "Figure":
    """Draw a forest plot: differences with their intervals beside a line at 0.

    Args:
        effects: From top to bottom.
        label: What the axis shows.
        legend: The meaning of a filled mark, an open one, and the second interval; none by default.
    """
    from matplotlib.lines import Line2D

    lines = sum(1 + effect.name.count("\n") for effect in effects)
    figure, (ax,) = make_figure(1, width=8.5, height=1.1 + 0.4 * bool(legend) + 0.33 * max(lines, 2))
    ax.axvline(0, color=INK, linewidth=1)
    for y, effect in enumerate(effects):
        style: dict[str, Any] = {"color": BLUE, "markerfacecolor": BLUE if effect.marked else PAPER}
        ax.plot(effect.interval, [y, y], color=BLUE, linewidth=2.5, solid_capstyle="butt", zorder=2)
        ax.plot(effect.difference, y, marker="o", markersize=8, markeredgewidth=2, zorder=3, **style)
        if effect.over_seeds is not None:
            ax.plot(effect.over_seeds, [y + 0.22] * 2, color=ORANGE, linewidth=1.5, linestyle=(0, (3, 1)))
        text = f"{number(effect.difference, effect.interval, signed=True)}  {effect.text}".rstrip()
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=10)
    ax.set_yticks(range(len(effects)), [effect.name for effect in effects], fontsize=10)
    ax.set_ylim(len(effects) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel(label)
    if legend:
        mark: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 8, "markeredgewidth": 2}
        shown = [Line2D([], [], linewidth=2.5, label=legend[0], **mark)]
        shown.append(Line2D([], [], linewidth=2.5, label=legend[1], markerfacecolor=PAPER, **mark))
        shown += [
            Line2D([], [], color=ORANGE, linewidth=1.5, linestyle=(0, (3, 1)), label=name)
            for name in legend[2:]
        ]
        figure.legend(handles=shown, loc="outside upper center", ncols=len(shown), frameon=False, fontsize=9)
    return figure


def draw_differences(comparisons: "Sequence[Comparison]") -> "Figure":
    """Draw a forest plot of comparisons, with their intervals and those over seeds alone.

    The mark of a difference is filled if its p-value is below .05 after Holm's correction.
    """
    first, count = comparisons[0], len(comparisons)
    effects = [
        Effect(
            f"{drawable(pair.a, 2 * i)}\n- {drawable(pair.b, 2 * i + 1)}",
            pair.difference,
            pair.interval,
            pair.p_holm < 0.05,
            p_text(pair.p_holm),
            None if pair.seeds is None else pair.seeds.interval,
        )
        for i, pair in enumerate(comparisons)
    ]
    same = all(pair.condition == first.condition for pair in comparisons)  # else the names tell
    condition = f" ({NAMES.get(first.condition, first.condition)})" if same else ""
    corrected = " after Holm's correction" if count > 1 else ""
    over = ", or ".join(dict.fromkeys(pair.drawn for pair in comparisons))
    legend = [f"over {over}; p < .05{corrected}", "p not below .05"]
    if any(effect.over_seeds is not None for effect in effects):
        legend.append("over seeds alone")
    title = METRICS[first.metric].title
    label = f"difference of {title}{condition}\n95 % intervals, {first.rows:,} rows"
    return draw_effects(effects, label=label, legend=legend)


def draw_ratings(scores: "Scores") -> "Figure":
    """Draw the mean ratings of systems with their intervals, and items won, tied and lost by pairs."""
    systems = list(dict.fromkeys(mean.system for mean in scores.figures))
    criteria = list(dict.fromkeys(mean.criterion for mean in scores.figures))
    rows = max(len(criteria) * len(systems) / 2, len(scores.contrasts))
    figure, (means, items) = make_figure(2, width=11, height=2.2 + 0.45 * rows)
    for mean in scores.figures:
        i = systems.index(mean.system)
        y = criteria.index(mean.criterion) + 0.5 * ((i + 0.5) / len(systems) - 0.5)
        style = _line_style(i)
        means.plot(mean.interval, [y, y], color=style["color"], linewidth=2.5, solid_capstyle="butt")
        label = drawable(mean.system, i) if mean.criterion == criteria[0] else None
        means.plot(mean.mean, y, markersize=8, linestyle="", label=label, **style)
    means.set_yticks(range(len(criteria)), [drawable(name, i) for i, name in enumerate(criteria)])
    means.set(xlim=(0.9, 5.1), xticks=range(1, 6), xlabel="mean rating, 95 % interval over items")
    means.set_ylim(len(criteria) - 0.5, -0.5)
    means.grid(axis="x", alpha=0.3)
    for y, pair in enumerate(scores.contrasts):
        start = 0
        for count, colour, ink, name in (
            (pair.wins, BLUE, "white", "a better"),
            (pair.ties, "#DDDDDD", "black", "same"),
            (pair.losses, ORANGE, "white", "b better"),
        ):
            items.barh(y, count, left=start, color=colour, height=0.7, label=None if y else name)
            if count:
                items.text(start + count / 2, y, str(count), ha="center", va="center", color=ink)
            start += count
        text = p_text(pair.p_holm)
        items.text(1.02, y, text, transform=items.get_yaxis_transform(), va="center", fontsize=10)
    several = len(systems) > 2
    names = [
        f"{drawable(pair.a, 0)} - {drawable(pair.b, 1)}\n{pair.measure}" if several else pair.measure
        for pair in scores.contrasts
    ]
    items.set_yticks(range(len(names)), names)
    items.set_ylim(len(names) - 0.5, -0.5)
    which = "" if several else f": a = {drawable(systems[0], 0)}, b = {drawable(systems[1], 1)}"
    items.set_xlabel(f"items{which}\np after Holm's correction")
    for ax in (means, items):
        ax.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return figure


def draw_attention(attention: Attention) -> "Figure":
    """Draw a waveform, its mel spectrogram and each text token's attention to it, on one axis of seconds.

    Raises:
        ValueError: There are not as many rows of weights as tokens.
    """
    import librosa
    import librosa.display
    from matplotlib.ticker import AutoLocator, ScalarFormatter

    weights, tokens = np.asarray(attention["weights"], dtype=float), list(attention["tokens"])
    waveform, rate = np.asarray(attention["waveform"], dtype=np.float32), attention["rate"]
    if weights.ndim != 2 or weights.shape[0] != len(tokens):
        raise ValueError(
            f"attention of shape {weights.shape} does not fit {len(tokens)} tokens [tokens, frames]"
        )
    seconds = len(waveform) / rate
    rows = max(2.0, 0.24 * min(len(tokens), LABELLED_TOKENS))
    figure, (wave, mel, heat) = make_figure(3, width=8, height=3.6 + rows, heights=(1, 1.6, rows))

    wave.plot(np.arange(len(waveform)) / rate, waveform, color=BLUE, linewidth=0.5)
    wave.set(ylabel="amplitude", xlim=(0, seconds))
    power = librosa.feature.melspectrogram(y=waveform, sr=rate, n_fft=512, hop_length=160, n_mels=64)
    decibels = librosa.power_to_db(power, ref=np.max)
    sizes: dict[str, Any] = {"sr": rate, "hop_length": 160, "n_fft": 512, "fmax": rate / 2}
    image = librosa.display.specshow(
        decibels, ax=mel, x_axis="time", y_axis="mel", cmap="magma", rasterized=True, **sizes
    )
    mel.set(xlabel="", ylabel="frequency (Hz)", yticks=[256, 1024, 4096])
    figure.colorbar(image, ax=mel, label="dB", pad=0.01)
    shades = heat.imshow(
        weights,
        aspect="auto",
        cmap="cividis",
        extent=(0, seconds, len(tokens) - 0.5, -0.5),
        interpolation="nearest",
    )
    figure.colorbar(shades, ax=heat, label="attention", pad=0.01, aspect=12.5 * rows)
    shown = range(0, len(tokens), -(-len(tokens) // LABELLED_TOKENS))
    heat.set_yticks(shown, [drawable(tokens[i], i) for i in shown], fontsize=9)
    heat.set(xlabel="time (s)", ylabel="text token")
    wave.tick_params(labelbottom=False)
    mel.tick_params(labelbottom=False)
    # librosa's formatter of the shared time axis rounds 1.05 s to 1.1
    heat.xaxis.set_major_locator(AutoLocator())
    heat.xaxis.set_major_formatter(ScalarFormatter())
    return figure


def draw_saliency(saliency: Saliency) -> "Figure":
    """Draw a waveform, and what its frames and the words add to a label's logit.

    Raises:
        ValueError: There are not as many weights as words, or both modalities are absent.
    """
    from matplotlib.patches import Patch

    frames, words = saliency["frame_weights"], saliency["word_weights"]
    label = drawable(saliency["label"], 0)
    if words is not None and len(words) != len(saliency["words"]):
        raise ValueError(f"{len(words)} weights do not fit {len(saliency['words'])} words")
    if frames is None and words is None:
        raise ValueError("nothing to draw: neither words nor frames have weights")
    heights = [] if frames is None else [1.2, 1.2]
    heights += [] if words is None else [0.28 * max(4, len(words))]
    figure, axes = make_figure(
        len(heights), width=8, height=1.4 + sum(heights), heights=heights, sharex=False
    )
    if frames is not None:
        wave, time = axes[0], axes[1]
        waveform, rate = saliency["waveform"], saliency["rate"]
        seconds = len(waveform) / rate
        edges = np.linspace(0, seconds, len(frames) + 1)
        wave.plot(np.arange(len(waveform)) / rate, waveform, color=GREY, linewidth=0.5)
        wave.set(ylabel="amplitude", xlim=(0, seconds))
        wave.tick_params(labelbottom=False)
        colours = np.where(frames < 0, ORANGE, BLUE)
        time.bar(edges[:-1], frames, width=np.diff(edges), align="edge", color=colours)
        time.axhline(0, color=INK, linewidth=0.6)
        ylabel = f"added logit\nper {1000 * seconds / len(frames):.0f} ms"
        time.set(ylabel=ylabel, xlabel="time (s)", xlim=(0, seconds))
    if words is not None:
        ax = axes[-1]
        places = np.arange(len(words))
        ax.barh(places, words, color=np.where(words < 0, ORANGE, BLUE), height=0.7)
        ax.axvline(0, color=INK, linewidth=0.6)
        ax.set_yticks(places, [drawable(word, i) for i, word in enumerate(saliency["words"])])
        ax.set_ylim(len(words) - 0.4, -0.6)
        ax.set_xlabel(f"added to the logit of {label}")
    handles = [Patch(color=BLUE, label=f"for {label}"), Patch(color=ORANGE, label="against")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def make_figure(
    count: int,
    *,
    width: float,
    height: float,
    heights: Sequence[float] | None = None,
    sharex: bool | None = None,
) -> tuple["Figure", list["Axes"]]:
    """Make a figure with panels side by side or, with `heights`, one above the other.

    Panels above each other share their x-axis by default.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.1))
    rows, columns = (count, 1) if heights else (1, count)
    ratios = {"height_ratios": list(heights)} if heights else None
    axes = figure.subplots(
        rows, columns, squeeze=False, sharex=bool(heights) if sharex is None else sharex, gridspec_kw=ratios
    )
    return figure, list(axes.flat)


def _line_style(i: int) -> dict[str, Any]:
    """The colour and the marker of a picture's i-th line."""
    return {"color": LINES[i % len(LINES)], "marker": "os^Dvx"[i % 6]}


def p_text(p_value: float) -> str:
    """A p-value in a picture."""
    return "p < .001" if p_value < 0.001 else f"p = {p_value:.3f}".replace("0.", ".", 1)


@cache
def _fonts() -> list[str]:
    """The installed fonts of FONTS; a glyph is taken from the first that has it."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [name for name in FONTS if name in installed]


@cache
def _letters() -> frozenset[int]:
    """The code points that the installed fonts of FONTS can draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = [findfont(FontProperties(family=name)) for name in _fonts()]
    return frozenset(code for path in paths for code in get_font(path).get_charmap())


def drawable(text: str, position: int) -> str:
    """The text, or its number if no installed font has its letters."""
    text = text.replace("▁", " ").strip() or text  # the word mark of SentencePiece
    if _letters().issuperset(map(ord, text)):
        return text.replace("$", r"\$")
    _warn_of_fonts()
    return f"#{position + 1}"


@cache
def _warn_of_fonts() -> None:
    """Warn once in a process."""
    logging.getLogger(__name__).warning(
        "no installed font has all letters of the pictures, which show numbers in their place; "
        "for Chinese, Japanese and Korean install fonts-noto-cjk (Debian, Ubuntu) or "
        "google-noto-sans-cjk-fonts (Fedora)"
    )
