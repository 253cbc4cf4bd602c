"""What every test gets: no network, one thread, fixed seeds, and shared material only where it is there."""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions
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
from torch import Tensor, nn  # noqa: E402

from mmsr.model.configuration import MmsrConfig  # noqa: E402
from mmsr.model.modeling import MmsrForSentimentReasoning  # noqa: E402
from mmsr.model.processing import MmsrProcessor  # noqa: E402

torch.set_num_threads(1)


def pytest_configure() -> None:
    """Let tests interrupt programs even where the tests themselves run in the background.

    A shell starts those with SIGINT ignored, and what ignores a signal hands that on to its children.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection, which some libraries ask for in each call."""
    gc.collect()
    gc.freeze()


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
    from mmsr.data.corpora.demo.corpus import make_demo

    return make_demo(tmp_path_factory.mktemp("corpus") / "demo", utterances=60, progress=False)


@pytest.fixture(scope="session")
def distributions() -> Mapping[str, list[str]]:
    """The installed distributions of each package; to find them takes a second."""
    return packages_distributions()


@pytest.fixture(scope="session")
def run_afresh(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`run(code, *arguments, cwd=".")`: a program in a process of its own, which has imported torch alone."""
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, "-P", Path(__file__).with_name("fresh_process.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)},
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        requests, codes = server.stdin, server.stdout

        def run(code: str, *arguments: object, cwd: Path | str = ".") -> subprocess.CompletedProcess[str]:
            folder = tmp_path_factory.mktemp("afresh")
            output, errors = (folder / name for name in ("output", "errors"))
            asked = {"code": code, "arguments": [str(argument) for argument in arguments]}
            paths = {"folder": os.path.abspath(cwd), "output": str(output), "errors": str(errors)}
            print(json.dumps(asked | paths), file=requests, flush=True)
            status = int(codes.readline())
            told = [path.read_text(encoding="utf-8") for path in (output, errors)]
            return subprocess.CompletedProcess([code], status, *told)

        yield run
        requests.close()


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


_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def make_language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make(words=(), chat=…)`: folder of a random causal language model whose tokens are bytes.

    `words` are tokens of their own; `chat` is its chat template, None for a model without one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def make(words: tuple[str, ...] = (), chat: str | None = _CHAT) -> Path:
        folder = tmp_path_factory.mktemp("language-model")
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_tokens([AddedToken(word) for word in words])
        special = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, additional_special_tokens=["<|im_start|>"], **special
        )
        fast.chat_template = chat
        fast.save_pretrained(folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
        )
        model = LlamaForCausalLM(config)
        enliven(model)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def language_model(make_language_model: Callable[..., Path]) -> Path:
    """Folder of a random causal language model with a chat template, whose tokens are bytes."""
    return make_language_model()


class ChatServer:
    """A stand-in for a server of chat completions: a function answers, and no model.

    No real server (vLLM, llama.cpp) can be had in tests. It speaks as much of OpenAI's interface as mmsr asks
    for, on a thread of this process.

    Attributes:
        respond: Returns status and content for a request's body.
        bodies: The requests, in order.
        keys: The header Authorization of each.
        address: For `model` in the file of a language model.
    """

    def __init__(self) -> None:
        self.respond: Callable[[dict[str, Any]], tuple[int, Any]] = lambda body: self.completion("")
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.bodies.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                there = self.path == "/v1/chat/completions"
                status, content = outer.respond(body) if there else (404, {})
                data = json.dumps(content).encode()
                with suppress(ConnectionError):  # a client may have been killed
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def completion(text: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """A reply as servers give it."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        return 200, {"object": "chat.completion", "choices": [choice | more], "usage": usage}


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A stand-in for a server of chat completions."""
    served = ChatServer()
    yield served
    served.server.shutdown()
    served.server.server_close()


# Tiny models with lively weights, and a batch whose rows differ in length and in what they have.

TEXTS = [
    "the doctor was very kind to me",
    "nobody listened and I am angry",
    "the appointment is on Tuesday",
    "bác sĩ rất tận tâm với tôi",
    "医生对我很好，谢谢",
    "kind words in an upset voice",
]


def enliven(module: nn.Module) -> None:
    """Weights of unit gain: as they are initialised (std .02), a tiny model hardly reacts to its input."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
        else:
            nn.init.normal_(parameter, mean=float(parameter.detach().mean().round()), std=0.1)


@pytest.fixture
def make_model() -> Callable[..., MmsrForSentimentReasoning]:
    """`make_model(attention="eager", **config)`: the same weights for the same config, in eval mode."""

    def make(attention: str = "sdpa", **overrides: Any) -> MmsrForSentimentReasoning:
        torch.manual_seed(3)
        model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", **overrides))
        enliven(model)
        model.set_attn_implementation(attention)
        return model.eval()

    return make


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three whole utterances, `input_ids [3, 7]` and `input_values [3, 4000]`; tokens 0 to 7 are special."""
    generator = torch.Generator().manual_seed(5)
    return {
        "input_ids": torch.randint(8, 256, (3, 7), generator=generator),
        "attention_mask": torch.ones(3, 7, dtype=torch.long),
        "input_values": torch.randn(3, 4000, generator=generator) * 0.3,
        "input_values_mask": torch.ones(3, 4000, dtype=torch.long),
    }


@pytest.fixture
def ragged(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with rows of different length; row 1 has no audio and row 2 no transcript."""
    batch["attention_mask"][0, 5:] = 0
    batch["attention_mask"][2] = 0
    batch["input_values_mask"][2, 2500:] = 0
    batch["input_values_mask"][1] = 0
    return batch


@pytest.fixture
def labels() -> Tensor:
    """Rationale targets `[3, 6]`: label token, rationale, end, then -100."""
    generator = torch.Generator().manual_seed(6)
    labels = torch.randint(8, 256, (3, 6), generator=generator)
    labels[:, 0] = torch.tensor([5, 6, 7])
    labels[0, 5] = labels[1, 3] = labels[2, 4] = 2
    labels[1, 4:] = labels[2, 5:] = -100
    return labels


@pytest.fixture(scope="session")
def trained_processor() -> MmsrProcessor:
    return MmsrProcessor.train(TEXTS * 3, vocab_size=340, max_text_tokens=200)


@pytest.fixture
def processor(trained_processor: MmsrProcessor) -> MmsrProcessor:
    """A processor whose settings a test may change."""
    return MmsrProcessor(trained_processor.feature_extractor, trained_processor.tokenizer)


@pytest.fixture
def waveforms() -> list[np.ndarray]:
    """Three utterances of .25, .2 and .3 s, 16 kHz."""
    generator = np.random.default_rng(0)
    return [(generator.standard_normal(n) * 0.1).astype(np.float32) for n in (4000, 3200, 4800)]
