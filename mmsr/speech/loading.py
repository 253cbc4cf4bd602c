"""Loading a recogniser of transformers, with errors in one line."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
from transformers.pipelines import AutomaticSpeechRecognitionPipeline
from transformers.utils.logging import disable_progress_bar

from mmsr.speech.decoder import RATE


def load_recogniser(model: str, device: torch.device, dtype: str) -> AutomaticSpeechRecognitionPipeline:
    """The recogniser of a folder or Hub id in transformers' pipeline.

    Raises:
        ValueError: The model cannot be read, is no recogniser, or takes another sampling rate.
    """
    disable_progress_bar()
    accepted = "accepted: a folder or Hub id of a speech recogniser of transformers"
    if not os.path.exists(model) and (os.path.isabs(model) or model.startswith(".") or model.count("/") > 1):
        raise ValueError(f"{model}: no such folder; {accepted}")
    try:
        config = AutoConfig.from_pretrained(model)
        kind = next(
            auto
            for mapping, auto in (
                (MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, AutoModelForSpeechSeq2Seq),
                (MODEL_FOR_CTC_MAPPING, AutoModelForCTC),
            )
            if type(config) in mapping
        )
        network = kind.from_pretrained(model, dtype=_precision(dtype, device)).eval()
        processor = AutoProcessor.from_pretrained(model)
    except StopIteration:
        raise ValueError(
            f"{model} is a {config.model_type}, which writes no transcripts; {accepted}"
        ) from None
    except Exception as error:  # transformers, safetensors and json raise all kinds for a damaged folder
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"recogniser {model} cannot be read ({reason}); {accepted}") from error
    rate = processor.feature_extractor.sampling_rate
    if rate != RATE:
        raise ValueError(f"{model} hears {rate} Hz; accepted: recognisers of {RATE} Hz")
    return AutomaticSpeechRecognitionPipeline(
        model=network,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device=device,
    )


def _precision(dtype: str, device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Where the processor computes in bfloat16 itself; elsewhere it is emulated, and slower than float32.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("arm_bf16")
    return torch.bfloat16 if device.type == "cpu" and fast else torch.float32
