"""What every test gets: no network, one thread, fixed seeds, and shared material only where it is there."""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before any library reads them. The caches are this run's own, so that no earlier run can answer for it.
_HF_HOME = tempfile.TemporaryDirectory(prefix="mmsr-tests-", ignore_cleanup_errors=True)
os.environ.update(
    HF_HOME=_HF_HOME.name,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_configure() -> None:
    """Let tests interrupt programs even where the tests themselves run in the background.

    A shell starts those with SIGINT ignored, and what ignores a signal hands that on to its children.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    _HF_HOME.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every generator before each test, so that no test depends on those before it."""
    value = 0
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value


def _shared(name: str) -> Path:
    root = Path(os.environ.get("MMSR_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name!r} in {root} (set MMSR_SHARED to the folder of shared models and data)")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of pretrained models; its tests are skipped where it is absent."""
    return _shared("models")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real speech; its tests are skipped where it is absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a small spoken corpus, 60 utterances; its tests are skipped without the `demo` extra."""
    pytest.importorskip(
        "espeakng_loader", reason="the demo corpus is spoken by espeak-ng: pip install 'mmsr[demo]'"
    )
    from mmsr.data.demo import make_demo

    return make_demo(tmp_path_factory.mktemp("corpus") / "demo", utterances=60, progress=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """An installed Chromium without a window, whose microphone beeps and who reaches this machine alone.

    Without one its tests are skipped; with MMSR_BROWSER=required (.ci/run) they fail.
    """
    lacking = pytest.fail if os.environ.get("MMSR_BROWSER") == "required" else pytest.skip
    if find_spec("playwright") is None:
        lacking("a browser is driven by playwright: pip install 'mmsr[dev]'")
    import playwright.sync_api as playwright

    programs = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        lacking(f"no browser on PATH; looked for {', '.join(programs)}")
    arguments = [
        "--no-sandbox",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        "--mute-audio",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a text encoder of three layers, in half precision as many are published."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = "[PAD] [UNK] [CLS] [SEP] the voice is upset calm words are kind and loud".split()
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,  # as it is by default, such a model sees hardly a difference between words
    )
    BertModel(config).half().save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder
