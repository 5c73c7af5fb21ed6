"""What we use of vLLM, with the names, defaults and behaviour of 0.32.0, computed by transformers.

`LLM` and `SamplingParams` take what those of `vllm/entrypoints/llm.py` and `vllm/sampling_params.py` take, or less: a
keyword that vLLM would refuse is refused here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from palign_bench.backbone.tokenizing import shared_length

BLOCK = 16  # tokens; only whole blocks of a prompt are found in the cache
_NAMED = (
    "runner convert tokenizer tokenizer_mode skip_tokenizer_init trust_remote_code allowed_local_media_path "
    "allowed_media_domains tensor_parallel_size dtype quantization revision tokenizer_revision chat_template seed "
    "gpu_memory_utilization cpu_offload_gb enforce_eager hf_token hf_overrides kv_cache_memory_bytes"
)
_OF_ENGINE_ARGUMENTS = "block_size enable_prefix_caching max_model_len max_logprobs logprobs_mode generation_config"


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None
    logprob_token_ids: list[int] | None = None

    def __post_init__(self) -> None:
        assert self.max_tokens is None or self.max_tokens >= 1
        assert not (self.stop and not self.detokenize), "stop strings are only supported when detokenize is True"
        assert self.logprob_token_ids is None or len(self.logprob_token_ids) <= 128


class LLM:
    """Generates as vLLM does: the token that stops a text is among its tokens, log-probabilities are of all tokens."""

    model: PreTrainedModel
    started: dict[str, Any]

    def __init__(self, model: str, **named: Any):
        unknown = set(named) - set(_NAMED.split()) - set(_OF_ENGINE_ARGUMENTS.split())
        assert not unknown, f"EngineArgs.__init__() got an unexpected keyword argument {unknown}"
        self.started = {"model": model, **named}
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.calls: list[tuple[list[TokensPrompt], SamplingParams]] = []
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: self.calls.clear()))

    @classmethod
    def of(cls, model: PreTrainedModel) -> LLM:
        llm = cls.__new__(cls)
        llm.model, llm.started, llm.calls = model, {"hf_overrides": {"head_dtype": "float32"}}, []
        return llm

    def generate(
        self,
        prompts: TokensPrompt | Sequence[TokensPrompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
        priority: Any = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        assert isinstance(sampling_params, SamplingParams)
        rows = [prompts] if isinstance(prompts, dict) else list(prompts)  # type: ignore[list-item]
        before = [row["prompt_token_ids"] for called, _ in self.calls for row in called]
        self.calls.append((rows, sampling_params))
        return [self._output(row["prompt_token_ids"], sampling_params, before) for row in rows]

    def _output(self, prompt: list[int], sampling: SamplingParams, before: list[list[int]]) -> Any:
        configured = self.model.generation_config.eos_token_id
        ends = {*(configured if isinstance(configured, list) else [configured]), *(sampling.stop_token_ids or [])}
        generator = torch.Generator().manual_seed(sampling.seed or 0)
        tokens: list[int] = []
        found: list[dict[int, Any]] = []
        for _ in range(sampling.max_tokens or 16):
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + tokens])).logits[0, -1]
            if self.started.get("hf_overrides", {}).get("head_dtype") != "float32":
                logits = logits.bfloat16().float()  # of a bfloat16 model, as the real one's were seen to be
            rows = logits.log_softmax(-1)
            drawn = rows.argmax()
            if sampling.temperature:
                drawn = torch.multinomial((logits / sampling.temperature).softmax(-1), 1, generator=generator)[0]
            tokens.append(int(drawn))
            asked = [tokens[-1], *(sampling.logprob_token_ids or [])]
            found.append({token: SimpleNamespace(logprob=float(rows[token])) for token in asked})
            if tokens[-1] in ends:
                break
        logprobs = found if sampling.logprob_token_ids else None
        cached = max((shared_length([prompt, other]) for other in before), default=0) // BLOCK * BLOCK
        completion = SimpleNamespace(token_ids=tokens, logprobs=logprobs, text="")
        # The last token of a prompt is always computed.
        return SimpleNamespace(outputs=[completion], num_cached_tokens=min(cached, (len(prompt) - 1) // BLOCK * BLOCK))


def install(monkeypatch: pytest.MonkeyPatch, on_processor: bool = False) -> None:
    """Let ``import vllm`` find this, built for a GPU or for processors."""
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: on_processor)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    for each in (LLM, SamplingParams, TokensPrompt):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, "vllm", module)
