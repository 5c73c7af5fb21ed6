"""The same questions to other programs, each with its best settings for them, timed beside ours; answers are compared.

A program that is not installed is one line that says how to install it.
"""

import copy
import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import packages_distributions, version
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.llama_cpp import LlamaCpp
from bench.lm_eval import LmEval
from bench.sglang import SGLang
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.engines.out_of_memory import free_memory
from palign_bench.backbone.engines.products import product_dtype
from palign_bench.backbone.loading.settings import why_vllm_is_too_old
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.served import ServingEngine, end_vllm, start_vllm
from palign_bench.backbone.tokenizing import SplitPrompts, encode
from palign_bench.questionnaire.inventory import OPTIONS, Item
from palign_bench.questionnaire.protocol import parse_released

GENERATE_BATCH = 10  # rows per `generate` call; larger ones were no faster on two cores
NEW_TOKENS = 15  # as the released code
LONGEST_PACK = 16_384  # tokens of a prompt in which SGLang is asked many items: what it reads in one pass by default
SEQUENCES = 24  # items that llama.cpp continues in one call, about 2,048 tokens

Clock = Callable[[Callable[[], object]], float]  # seconds of some work, done once


@dataclass(frozen=True)
class Questions:
    """A part of one person's items as a peer is asked them; ``of``: items in all, to which its seconds are scaled.

    ``openings``: whole prompts up to ``Option``; ``texts``: up to where the letter stands; ``file``: the model's GGUF;
    ``of_one_process``: whether the clock counts this process's time alone.
    """

    backbone: LocalBackbone
    openings: list[str]
    texts: list[str]
    prompts: SplitPrompts
    options: list[int]
    of: int
    clock: Clock
    file: Path | None = None
    of_one_process: bool = False

    def scaled(self, first: float, others: float) -> float:
        """Seconds for all items, where the first of the part took so long and all its others, one at least, so long."""
        return first + others / (len(self.texts) - 1) * (self.of - 1)


def questions(
    backbone: LocalBackbone,
    alignment: Alignment,
    part: Sequence[Item],
    of: int,
    clock: Clock,
    file: Path | None = None,
    of_one_process: bool = False,
) -> Questions:
    """These items as peers are asked them."""
    opening, options = backbone.chat.option_tokens("Option (", backbone.protocol.letters)
    texts = {
        each: [backbone.chat.render(backbone.dialogue(alignment, item, each)) for item in part]
        for each in ("Option", opening)
    }
    prompts = backbone.split(alignment, part, opening)
    return Questions(backbone, texts["Option"], texts[opening], prompts, options, of, clock, file, of_one_process)


@dataclass(frozen=True)
class Answered:
    """Seconds for all items; the part's answers (0: the first option, None: none) and, if told, log-probabilities."""

    seconds: float
    answers: list[int | None]
    note: str
    log_probs: Tensor | None = None
    scaled: bool = True  # the part was timed; else as many items as there are in all


def generate(asked: Questions, model: torch.nn.Module | None = None) -> Answered:
    """What a script without an engine does: whole prompts, left-padded, transformers' `generate`."""
    backbone, texts = asked.backbone, []
    plain_generation(backbone, asked.openings[:1], model)  # warm-up
    seconds = asked.clock(lambda: texts.extend(plain_generation(backbone, asked.openings, model)))
    return Answered(seconds * asked.of / len(texts), parsed(texts), f"whole prompts, {NEW_TOKENS} new tokens")


def lm_eval(asked: Questions, model: torch.nn.Module | None = None) -> Answered:
    """lm-evaluation-harness with its HF backend; a task is made once, however many items it has."""
    peer, tasks = LmEval(asked.backbone, model), list[Any]()
    found: list[Tensor] = []
    peer.log_probs(peer.task(asked.texts[:1]))  # warm-up
    once = asked.clock(lambda: tasks.append(peer.task(asked.texts)))
    items = asked.clock(lambda: found.append(peer.log_probs(tasks[0])))
    seconds = once + items / len(asked.texts) * asked.of
    return Answered(seconds, found[0].argmax(-1).tolist(), "HF backend", found[0])


def llama_cpp(asked: Questions, sequences: int = 1) -> Answered:
    """llama.cpp; the beginning is computed once, then ``sequences`` items at a time."""
    assert asked.file is not None
    positions = len(asked.prompts.prefix) + 2 * LlamaCpp.BATCH
    peer, suffixes = LlamaCpp(asked.file, positions, sequences, torch.get_num_threads()), asked.prompts.suffixes
    found: list[Tensor] = []
    peer.read_beginning(asked.prompts.prefix[:8])  # warm-up
    peer.log_probs(suffixes[:1], asked.options)
    beginning = asked.clock(lambda: peer.read_beginning(asked.prompts.prefix))
    items = asked.clock(lambda: found.append(peer.log_probs(suffixes, asked.options)))
    peer.close()
    at_once = min(sequences, len(suffixes))
    how = "one item at a time" if at_once == 1 else f"{at_once} items in one call"
    seconds = beginning + items / len(suffixes) * asked.of
    return Answered(seconds, found[0].argmax(-1).tolist(), f"{asked.file.name}, {how}", found[0])


def openvino(asked: Questions, in_float32: bool = False) -> Answered:
    """OpenVINO GenAI, whose cache keeps the beginning. It tells no log-probabilities, so one token is generated.

    As it comes, it multiplies activations of 8 bits and keeps a cache of 8 bits; ``in_float32``: neither.
    """
    import openvino_genai as genai
    from openvino import Type

    assert asked.file is not None

    settings = genai.SchedulerConfig()
    settings.cache_size, settings.enable_prefix_caching, settings.max_num_batched_tokens = 1, True, 2048  # 1 GiB
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    exact = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": Type.f32,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    arithmetic = exact if in_float32 else {}
    pipeline = genai.LLMPipeline(str(asked.file), "CPU", scheduler_config=settings, **threads, **arithmetic)
    one_token = genai.GenerationConfig(max_new_tokens=1, do_sample=False, apply_chat_template=False)
    letters: list[str] = []

    def write(texts: list[str]) -> None:
        letters.extend(str(text).strip() for text in pipeline.generate(texts, one_token).texts)

    pipeline.generate(["Option ("], one_token)  # warm-up
    first = asked.clock(lambda: write(asked.texts[:1]))
    others = asked.clock(lambda: write(asked.texts[1:]))
    known = list(asked.backbone.protocol.letters)
    answers = [known.index(letter) if letter in known else None for letter in letters]
    how = "float32" if in_float32 else "8-bit activations and cache"
    return Answered(asked.scaled(first, others), answers, f"{asked.file.name}, prefix caching, one new token, {how}")


def vllm(asked: Questions, model: PreTrainedModel | None = None) -> Answered:
    """vLLM as `model.engine=vllm` asks it, in a process of its own; its cache keeps the beginning."""
    model, (first, *others) = model or asked.backbone.model, asked.prompts.suffixes
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # by default it leaves a core to the process that asks
    # Of 128 tokens there by default: what is left of the beginning after its last whole block is read with every item.
    settings = {"gpu_memory_utilization": _free_share()} if model.device.type == "cuda" else {"block_size": 32}
    with _saved(asked.backbone, model) as (folder, dtype):
        llm = start_vllm(folder, dtype, **settings)
    engine = ServingEngine(llm, asked.backbone.tokenizer, frozenset())
    found: list[Tensor] = []

    def read(prefix: list[int], suffixes: list[list[int]]) -> None:
        found.append(engine.option_log_probs(Request(SplitPrompts(prefix, suffixes)), asked.options))

    read(asked.prompts.prefix[:8], [first])  # warm-up
    seconds = asked.scaled(
        asked.clock(lambda: read(asked.prompts.prefix, [first])),
        asked.clock(lambda: read(asked.prompts.prefix, others)),
    )
    end_vllm(llm)  # what is timed next has the machine to itself
    log_probs = torch.cat(found[1:])
    how = ", ".join(["prefix caching, logits in float32", *(f"{name} {value:g}" for name, value in settings.items())])
    return Answered(seconds, log_probs.argmax(-1).tolist(), how, log_probs)


def sglang(asked: Questions, model: PreTrainedModel | None = None, packed: bool = False) -> Answered:
    """SGLang, in processes of its own; its cache keeps the beginning, or (``packed``) many items share a prompt."""
    model, (first, *others) = model or asked.backbone.model, asked.prompts.suffixes
    share = _free_share() if model.device.type == "cuda" else None
    with _saved(asked.backbone, model) as (folder, dtype):
        positions = min(asked.backbone.anatomy.context or LONGEST_PACK, LONGEST_PACK)
        peer = SGLang(folder, dtype, positions, packed, share)
    found: list[Tensor] = []

    def read(prefix: list[int], suffixes: Sequence[list[int]]) -> None:
        found.append(peer.log_probs(prefix, suffixes, asked.options))

    read(asked.prompts.prefix[:8], [first])  # warm-up
    if packed:  # a prompt's share of the beginning depends on how many items it holds: as many as there are in all
        every = list(islice(cycle(asked.prompts.suffixes), asked.of))
        seconds, how = asked.clock(lambda: read(asked.prompts.prefix, every)), "many items in one prompt"
    else:
        seconds = asked.scaled(
            asked.clock(lambda: read(asked.prompts.prefix, [first])),
            asked.clock(lambda: read(asked.prompts.prefix, others)),
        )
        how = "its cache keeps the beginning"
    peer.close()  # what is timed next has the machine to itself
    log_probs = torch.cat(found[1:])[: len(asked.prompts.suffixes)]
    how += ", logits in float32"
    return Answered(seconds, log_probs.argmax(-1).tolist(), how, log_probs, scaled=not packed)


@contextmanager
def _saved(backbone: LocalBackbone, model: PreTrainedModel) -> Iterator[tuple[str, str]]:
    """A folder with this model and the backbone's tokenizer, and the name of the model's type."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)
        yield folder, str(model.dtype).removeprefix("torch.")


def _free_share() -> float:
    """Share of the GPU's memory that the model which is timed beside it leaves free, but for a twentieth."""
    free_memory()
    free, total = torch.cuda.mem_get_info()
    return math.floor(100 * free / total - 5) / 100


@dataclass(frozen=True)
class Peer:
    """A program: what is imported and what pip calls it, and the ways in which it is asked."""

    package: str
    module: str
    ways: Mapping[str, Callable[[Questions], Answered]]
    takes_file: bool = False
    in_torch: bool = False  # it computes with our model's weights, so it can have them in either dtype
    writes: bool = False  # text, which is parsed; ours is written and parsed likewise
    in_process: bool = True  # else in one of its own
    keeps_beginning: bool = False  # so that the first item, which reads it, is timed apart from the others


PEERS = {
    "generate": Peer("transformers", "transformers", {"plain_generate": generate}, in_torch=True, writes=True),
    "lm-eval": Peer("lm-eval", "lm_eval", {"lm_eval": lm_eval}, in_torch=True),
    "llama.cpp": Peer(
        "llama-cpp-python",
        "llama_cpp",
        {"llama_cpp": llama_cpp, "llama_cpp_batched": lambda asked: llama_cpp(asked, SEQUENCES)},
        takes_file=True,
    ),
    "openvino": Peer(
        "openvino-genai",
        "openvino_genai",
        {"openvino": openvino, "openvino_float32": lambda asked: openvino(asked, in_float32=True)},
        takes_file=True,
        keeps_beginning=True,
    ),
    # Its build for processors has a package of its own.
    "vllm": Peer(
        "vllm" if torch.cuda.is_available() else "vllm-cpu",
        "vllm",
        {"vllm": vllm},
        in_torch=True,
        in_process=False,
        keeps_beginning=True,
    ),
    "sglang": Peer(
        "sglang",
        "sglang",
        {"sglang": sglang} | ({"sglang_packed": partial(sglang, packed=True)} if torch.cuda.is_available() else {}),
        in_torch=True,
        in_process=False,
        keeps_beginning=True,
    ),
}


def why_not_asked(name: str, asked: Questions) -> str | None:
    """Why a peer cannot be asked here, in one line; None where it can."""
    peer = PEERS[name]
    if importlib.util.find_spec(peer.module) is None:
        return f"not installed: pip install {peer.package}"
    if name == "vllm" and (reason := why_vllm_is_too_old()) is not None:
        return reason
    if peer.takes_file and asked.file is None:
        return "reads GGUF files, and this model comes in none"
    if asked.of_one_process and not peer.in_process:
        return "computes in a process of its own, whose time --processor-time does not count"
    return None


def ask(name: str, asked: Questions) -> dict[str, Answered]:
    """Answers and times of one peer, by way of asking; also in float32 where this processor multiplies that faster."""
    peer, model = PEERS[name], asked.backbone.model
    found = {way: work(asked) for way, work in peer.ways.items()}
    if peer.in_torch and product_dtype(model.dtype, model.device) != model.dtype:
        converted = copy.deepcopy(model).float()
        found |= {f"{way}_float32": work(asked, converted) for way, work in peer.ways.items()}  # type: ignore[call-arg]
    return found


def compared(name: str, answered: Answered, ours: Sequence[str], log_probs: Tensor) -> str:
    """A peer's note: its version, and how its answers compare with our texts or our log-probabilities of the part."""
    own = parsed(ours) if PEERS[name].writes else log_probs.argmax(-1).tolist()
    same = [theirs == answer for theirs, answer in zip(answered.answers, own, strict=True)]
    package = _installed(PEERS[name])
    timed = "timed, scaled" if answered.scaled else "compared"
    note = f"{package} {version(package)}, {answered.note}; {len(same)} items {timed}; "
    note += f"{sum(same) / len(same):.0%} equal answers"
    if answered.log_probs is not None:
        note += f", log-probabilities differ by at most {float((answered.log_probs - log_probs).abs().max()):.2g}"
    return note


def _installed(peer: Peer) -> str:
    """The name of the distribution that is there."""
    return next(iter(packages_distributions().get(peer.module, ())), peer.package)


def parsed(texts: Sequence[str]) -> list[int | None]:
    """Which option each text after ``Option`` names, 0 the first; None where it names none."""
    found = [parse_released(text) for text in texts]
    return [None if value is None else len(OPTIONS) - value for value in found]


def plain_generation(backbone: LocalBackbone, texts: Sequence[str], model: torch.nn.Module | None = None) -> list[str]:
    """Greedy continuations of whole prompts, left-padded, by transformers' `generate`."""
    model = model or backbone.model
    rows = [encode(backbone.tokenizer, text) for text in texts]
    written: list[str] = []
    for start in range(0, len(rows), GENERATE_BATCH):
        batch = rows[start : start + GENERATE_BATCH]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        inputs = {"input_ids": ids.to(backbone.model.device), "attention_mask": mask.to(backbone.model.device)}
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        written += backbone.tokenizer.batch_decode(tokens[:, longest:], clean_up_tokenization_spaces=False)
    return written
