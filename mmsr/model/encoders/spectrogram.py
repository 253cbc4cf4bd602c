"""Audio encoders that read a log-mel spectrogram: Whisper's, and any image model of timm."""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging
from transformers.utils.output_capturing import capture_outputs

from mmsr.extras import needed_for
from mmsr.model.configuration import MmsrConfig, TimmAudioConfig
from mmsr.model.encoders.base import AudioEncoder, Encoded

logger = logging.get_logger(__name__)


class SpectrogramEncoder(AudioEncoder):
    """Base of the encoders that read a log-mel spectrogram in windows, each encoded by itself.

    The last window is filled with silence, and frames without a real sample are masked. Windows past a row's
    end, and those of a row without audio, are not encoded; their states are zero. `attentions` have a square
    per window, `[b * windows, h, n, n]`.
    """

    @property
    def window(self) -> int:
        """Samples of one window."""
        raise NotImplementedError

    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[w, mels, frames]` of whole windows `[w, s]`, in float32."""
        raise NotImplementedError

    def encode_windows(self, features: Tensor, **outputs: bool) -> Any:
        """Encode `log_mel` windows into a transformers output, its states `[w, n, d]`."""
        raise NotImplementedError

    def encode(self, input_values: Tensor, mask: Tensor, **outputs: bool) -> Encoded:
        """Encode the windows that have real samples and join their frames."""
        batch, samples = input_values.shape
        lengths = mask.sum(-1, keepdim=True)
        windows = -(-samples // self.window)
        input_values = nn.functional.pad(input_values, (0, windows * self.window - samples))
        cut = input_values.reshape(-1, self.window)  # [b w, s]; einops counts b w, which a graph cannot
        starts = torch.arange(windows, device=lengths.device) * self.window
        real = (starts < lengths + ~mask.any()).flatten()  # of a batch without audio the first ones
        if torch.compiler.is_compiling() and not (self.training or torch.compiler.is_exporting()):
            real = torch.ones_like(real)  # one graph: no shape may depend on values; an exported one's may
        output = self.encode_windows(self.log_mel(cut[real]).to(self.model.dtype), **outputs)
        frames = output.last_hidden_state.shape[1]
        starts = torch.arange(windows * frames, device=lengths.device) * self.window // frames

        def all_windows(states: Tensor) -> Tensor:
            places = real.cumsum(0) - 1  # of each window among those encoded, or of another
            states = states.index_select(0, places.clamp(min=0))
            return states.masked_fill(~real.view(-1, *[1] * (states.ndim - 1)), 0.0)

        def joined(states: Tensor) -> Tensor:
            longest = -(-samples * states.shape[1] // self.window)
            return all_windows(states).reshape(batch, -1, *states.shape[2:])[:, :longest]

        encoded = Encoded.of(
            output,
            (starts < lengths).long(),
            all_layers=self.keeps_all_layers,
            extra_layer=self.extra_layer,
        )
        return Encoded(
            joined(encoded.states),
            encoded.mask[:, : -(-samples * frames // self.window)],
            encoded.hidden_states and tuple(map(joined, encoded.hidden_states)),
            encoded.attentions and tuple(map(all_windows, encoded.attentions)),
        )


class WhisperAudioEncoder(SpectrogramEncoder):
    """Whisper's encoder with its 30 s window, or a shorter one (`audio_window_seconds`); a frame is 20 ms.

    A shorter window costs less, but gives other states than the full one, which attends to the silence after
    a short clip. The log-mel spectrogram is that of `WhisperFeatureExtractor`, in float32, unless
    `audio_dynamic_range` sets another floor.
    """

    n_fft = 400
    hop = 160

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(config)
        self.window_seconds = config.audio_window_seconds
        self.dynamic_range = 8.0 if config.audio_dynamic_range is None else config.audio_dynamic_range
        # no buffer: it would follow the weights into bfloat16, and be lost where transformers builds on meta
        self.filters = torch.from_numpy(_whisper_filters(self.config.num_mel_bins))

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """Whisper's encoder without its decoder."""
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder._from_config(config, dtype=torch.get_default_dtype())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The encoder of a pretrained Whisper."""
        return super().load(name).get_encoder()

    @property
    def window(self) -> int:
        """Samples of one window, a multiple of 20 ms."""
        frame = 2 * self.hop
        if self.window_seconds is None:
            return self.config.max_source_positions * frame
        return math.ceil(self.window_seconds * 16_000 / frame) * frame

    def encode_windows(self, features: Tensor, **outputs: bool) -> BaseModelOutput:
        """Encode windows `[w, mels, 2 n]` at the first n positions."""
        return _whisper_forward(self.model, features, **outputs)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[w, mels, 2 n]` of whole windows `[w, s]` at 16 kHz."""
        power = _power_spectrum(input_values.float(), n_fft=self.n_fft, hop=self.hop)
        mel = self.filters.to(input_values.device).T @ power
        log_mel = mel.clamp(min=1e-10).log10()
        floor = log_mel.amax((1, 2), keepdim=True) - self.dynamic_range
        return (torch.maximum(log_mel, floor) + 4.0) / 4.0


def _power_spectrum(input_values: Tensor, *, n_fft: int, hop: int) -> Tensor:
    """Power `[w, n_fft / 2 + 1, s / hop]` of windows `[w, s]`, without the frame past their end."""
    if not torch.compiler.is_exporting():
        window = torch.hann_window(n_fft, device=input_values.device)
        spectrum = torch.stft(input_values, n_fft, hop, window=window, return_complex=True)
        return spectrum[..., :-1].abs().square().contiguous()
    # onnxruntime's STFT takes longer than an encoder's layer; this is as exact and five times as fast
    waves = torch.from_numpy(_windowed_waves(n_fft)).to(input_values.device)
    padded = nn.functional.pad(input_values[:, None], (n_fft // 2, n_fft // 2), mode="reflect")
    parts = nn.functional.conv1d(padded, waves[:, None], stride=hop)[..., :-1]
    return reduce(parts.square(), "w (part k) n -> w k n", "sum", part=2)


@capture_outputs
def _whisper_forward(model: Any, features: Tensor, **_: Any) -> BaseModelOutput:
    """`WhisperEncoder.forward` for windows of any length, without LayerDrop."""
    states = nn.functional.gelu(model.conv1(features))
    states = rearrange(nn.functional.gelu(model.conv2(states)), "w d n -> w n d")
    states = states.contiguous()  # else every layer copies them
    states = states + model.embed_positions.weight[: states.shape[1]]
    states = nn.functional.dropout(states, p=model.dropout, training=model.training)
    for layer in model.layers:
        states = layer(states, None)
    return BaseModelOutput(last_hidden_state=model.layer_norm(states))


@functools.cache
def _windowed_waves(n_fft: int) -> np.ndarray:  # [n_fft + 2, n_fft], cosines before sines, float32
    angles = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) * (2 * np.pi / n_fft)
    window = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
    return (np.concatenate([np.cos(angles), np.sin(angles)]) * window).astype("float32")


@functools.cache
def _whisper_filters(mels: int) -> np.ndarray:  # [201, mels], float32
    return mel_filter_bank(
        num_frequency_bins=1 + WhisperAudioEncoder.n_fft // 2,
        num_mel_filters=mels,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=16_000,
        norm="slaney",
        mel_scale="slaney",
    ).astype("float32")


class TimmAudioEncoder(SpectrogramEncoder):
    """Any timm image model on a log-mel spectrogram, through transformers' `TimmWrapperModel`.

    The spectrogram of a window (`TimmAudioConfig.window_seconds`) is a picture of one channel, mels high and
    frames wide; feature maps `[w, d, mels', n]` are averaged over frequency. timm fits pretrained image
    weights to it: it sums the first layer's three channels and interpolates position embeddings, as AST does
    (Gong et al. 2021, arXiv 2104.01778). Unlike AST's, the level is kept: the logarithm is shifted and scaled
    by constants. `hidden_states` of a convolutional model differ in width and frames. No `attentions`.

    Raises:
        ValueError: A layer mix of a model whose stages differ in shape.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(config)
        self._checkpoints = False
        stages = {(stage["num_chs"], stage["reduction"]) for stage in self._stages}
        if self.keeps_all_layers and len(stages) > 1:
            raise ValueError(
                f"audio_layer_mix=True: the stages of timm's {self.config.architecture!r} differ in width or "
                "resolution; accepted: False, or a model of equal layers such as a ViT"
            )

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The timm model of this config, with random weights, up to its last stage.

        Raises:
            ValueError: timm has no such model.
        """
        with needed_for(config.architecture):
            import timm
        from transformers import TimmWrapperModel

        name = config.architecture
        if not timm.is_model(name):
            alike = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
            raise ValueError(
                f"architecture={name!r} is no model of timm {timm.__version__}; accepted: a name of "
                f"timm.list_models(){', such as ' if alike else ''}{', '.join(alike)}"
            )
        model: Any = TimmWrapperModel._from_config(config, dtype=torch.get_default_dtype())
        TimmAudioEncoder._prune(model.timm_model)
        return model

    @staticmethod
    def _prune(model: Any) -> None:
        """Remove a convolutional head, which would get no gradient."""
        model.prune_intermediate_layers([len(model.feature_info) - 1], prune_head=True)

    @classmethod
    def load(cls, name: str | os.PathLike[str], **settings: Any) -> PreTrainedModel:
        """The pretrained model of `timm/<model>`, or of `timm/local-dir:<folder>`, in float32.

        The config keeps the architecture's name, not the source of the weights, so that a checkpoint reloads
        offline.

        Args:
            name: The source.
            **settings: Of `TimmAudioConfig`, such as `window_seconds`.

        Raises:
            ValueError: Another kind of source.
        """
        with needed_for(str(name)):
            import timm

        source = str(name).removeprefix("timm/")
        scheme, _, folder = source.rpartition(":")
        if scheme not in ("", "local-dir"):
            raise ValueError(f"audio={str(name)!r}; accepted: timm/<model> or timm/local-dir:<folder>")
        architecture = source
        if scheme:
            architecture = json.loads((Path(folder) / "config.json").read_text("utf-8"))["architecture"]
        config = TimmAudioConfig(architecture=architecture, **settings)
        model: Any = cls.build(config)
        arguments = {"pretrained": True, "num_classes": 0, **config.model_args}
        if model.timm_model.pretrained_cfg.get("fixed_input_size"):
            # a folder's own size would otherwise win over the overlay in `model_args`
            arguments["img_size"] = (config.num_mel_bins, config.window_frames)
        pretrained: Any = timm.create_model(source, **arguments)
        cls._prune(pretrained)
        model.timm_model.load_state_dict(pretrained.state_dict())
        return model

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass; transformers sets this flag."""
        return self._checkpoints

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        """Switch it in timm's blocks; log a model that cannot."""
        model: Any = self.model
        if model.supports_gradient_checkpointing:
            self._checkpoints = enable
            model.timm_model.set_grad_checkpointing(enable)
        elif enable:
            logger.warning(
                "timm's %s has no gradient checkpointing: its activations are kept", self.config.architecture
            )

    @property
    def _stages(self) -> list[dict[str, Any]]:
        model: Any = self.model
        return list(model.timm_model.feature_info)

    @property
    def num_states(self) -> int:
        """Number of kept layers: all blocks with a layer mix, else the last."""
        return len(self._stages) if self.keeps_all_layers else super().num_states

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self._stages[-1]["num_chs"]

    @property
    def window(self) -> int:
        """Samples of one window."""
        return self.config.window_frames * self.config.hop_length

    def train(self, mode: bool = True) -> TimmAudioEncoder:
        """Set the mode; a frozen model stays in eval mode, for its batch norm's statistics."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            self.model.eval()
        return self

    @property
    def one_graph(self) -> bool:
        """As of the base class; not with torchaudio's filters."""
        return False

    def encode_windows(self, features: Tensor, **outputs: bool) -> BaseModelOutput:
        """Encode pictures `[w, mels, frames]`; each stage's map becomes frames `[w, n, d]`."""
        stages = outputs["output_hidden_states"] or [len(self._stages) - 1]
        maps = self.model(features[:, None], output_hidden_states=stages, norm=True, output_fmt="NCHW")
        frames = tuple(reduce(stage, "w d k n -> w n d", "mean") for stage in maps.hidden_states)
        return BaseModelOutput(last_hidden_state=frames[-1], hidden_states=frames)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def log_mel(self, input_values: Tensor) -> Tensor:
        """Log-mel spectrogram `[w, mels, frames]` of whole windows `[w, s]`, -1.5 at silence."""
        from torchaudio import functional as audio

        config, device = self.config, input_values.device
        spectrum = audio.spectrogram(
            input_values.float(),
            pad=0,
            window=torch.hann_window(config.n_fft, device=device),
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            win_length=config.n_fft,
            power=2.0,
            normalized=False,
        )
        filters = audio.melscale_fbanks(
            config.n_fft // 2 + 1, 0.0, config.sampling_rate / 2, config.num_mel_bins, config.sampling_rate
        ).to(device)
        mel = filters.T @ spectrum[..., :-1]
        return (mel.clamp(min=1e-10).log10() + 4.0) / 4.0
