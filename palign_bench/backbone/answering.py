"""Reading answers from a model: five options in one forward pass, or greedy text until its parse is decided.

One interface. `SharedPrefixEngine` computes a person's system prompt once and lets all items attend to it;
`FullPromptEngine` reads every prompt whole, for architectures that the first does not know (and as its oracle). Others:
`backbone/together.py`, `backbone/serving.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.attention import SharedPrefix, shared_prefix_mode
from palign_bench.backbone.options import OptionScores, PooledLogits, option_families
from palign_bench.backbone.tokenizing import SplitPrompts

# Positions of own tokens in one forward pass. Large enough to keep two cores or a GPU busy, small enough for memory;
# part of the batch geometry, so a fixed number and no function of what happens to be free.
POSITIONS_PER_BATCH = {"cpu": 2048, "cuda": 32768}

IsDecided = Callable[[str], bool]
LogitsReader = Callable[[Tensor, list[int]], Tensor]


class Engine(ABC):
    """Reads answers from a model, whatever computes it, and counts the positions that this takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int], positions: int):
        self.tokenizer = tokenizer
        self.end_tokens = end_tokens
        self.positions = positions
        self.tokens_read = 0
        self.tokens_generated = 0

    @abstractmethod
    def option_log_probs(self, prompts: SplitPrompts, options: Sequence[int], virtual: Tensor | None) -> Tensor:
        """Log-probabilities among ``options`` of the token after each prompt: float32 ``(prompts, options)``.

        ``virtual``: soft-prompt embeddings ``(n, width)`` that stand before every prompt.
        """

    @abstractmethod
    def greedy(
        self,
        prompts: SplitPrompts,
        max_new_tokens: int,
        is_decided: IsDecided,
        virtual: Tensor | None,
        scores: OptionScores | None = None,
    ) -> list[str]:
        """Greedy continuation per prompt, special tokens kept; a row stops when its text is decided or ends.

        ``scores``: a second opinion on the five options, pooled with the model's wherever it would write a letter.
        """

    def decided_text(self, tokens: Sequence[int], is_decided: IsDecided) -> tuple[str, int]:
        """The text up to where it is decided or ends, and of how many tokens it is."""
        text, end = "", 0
        for end, token in enumerate(tokens, start=1):
            text = self._text(tokens[:end])
            if token in self.end_tokens or is_decided(text):
                break
        return text, end

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


class TorchEngine(Engine):
    """An engine of a model in this process. Rows are sorted by length and batched the same way for every person."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int | None = None):
        self.model: Any = model  # transformers types few of the attributes used here
        positions = positions or POSITIONS_PER_BATCH[model.device.type]
        super().__init__(tokenizer, end_tokens_of(tokenizer, model.generation_config), positions)

    @cached_property
    def families(self) -> list[list[int]]:
        """The tokens of A…E, for each way of writing them."""
        return option_families(self.tokenizer)

    def batches(self, suffixes: Sequence[Sequence[int]], extra: int = 0, copies: int = 1) -> Iterator[list[int]]:
        """Row indices, sorted by length, cut where a batch would hold more than ``positions`` padded positions.

        ``extra``: positions that each row will grow by. ``copies``: how often the batch holds each row.
        """
        order = sorted(range(len(suffixes)), key=lambda i: (len(suffixes[i]), i))
        batch: list[int] = []
        for index in order:
            if batch and copies * (len(batch) + 1) * (len(suffixes[index]) + extra) > self.positions:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def read_options(self, hidden: Tensor, options: Sequence[int]) -> Tensor:
        """Log-softmax over the options' rows of the output matrix alone: ``hidden`` ``(rows, width)``."""
        head = self.model.get_output_embeddings()
        rows = torch.tensor(options, device=hidden.device)
        logits = hidden @ head.weight[rows].T.to(hidden.dtype)
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias[rows]
        return finite(logits.float()).log_softmax(-1)

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids ``(rows, longest)`` and lengths ``(rows,)`` on the model's device."""
        lengths = torch.tensor([len(row) for row in rows], device=self.model.device)
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.model.device), lengths


class SharedPrefixEngine(TorchEngine):
    """Computes the shared beginning once and never copies its cache (see `attention`)."""

    def compute_prefix(self, prefix: Sequence[int], virtual: Tensor | None) -> SharedPrefix | None:
        """Keys and values of the prefix, the soft prompt before it included; None for an empty one."""
        embeddings = self.model.get_input_embeddings()
        inputs = embeddings(torch.tensor([list(prefix)], dtype=torch.long, device=self.model.device))
        if virtual is not None:
            inputs = torch.cat([virtual.to(inputs)[None], inputs], dim=1)
        if inputs.shape[1] == 0:
            return None
        self.tokens_read += inputs.shape[1]
        return self._prefix([inputs.shape[1]], inputs_embeds=inputs)

    def _prefix(self, lengths: list[int], **inputs: Tensor) -> SharedPrefix:
        """Keys and values of right-padded prefixes of these lengths, given as ids or embeddings."""
        cache = DynamicCache(config=self.model.config)
        self._decoder()(**inputs, past_key_values=cache, use_cache=True)
        layers: list[Any] = list(cache.layers)
        return SharedPrefix([layer.keys for layer in layers], [layer.values for layer in layers], lengths)

    def option_log_probs(self, prompts: SplitPrompts, options: Sequence[int], virtual: Tensor | None) -> Tensor:
        result = torch.empty(len(prompts.suffixes), len(options))
        with torch.no_grad(), shared_prefix_mode(self.model):
            prefix = self.compute_prefix(prompts.prefix, virtual)
            for batch in self.batches(prompts.suffixes):
                hidden, lengths, _ = self._forward([prompts.suffixes[i] for i in batch], prefix, cache=None)
                last = hidden[torch.arange(len(batch), device=hidden.device), lengths - 1]
                result[batch] = self.read_options(last, options).cpu()
        return result

    def greedy(
        self,
        prompts: SplitPrompts,
        max_new_tokens: int,
        is_decided: IsDecided,
        virtual: Tensor | None,
        scores: OptionScores | None = None,
    ) -> list[str]:
        texts = [""] * len(prompts.suffixes)
        with torch.no_grad(), shared_prefix_mode(self.model):
            prefix = self.compute_prefix(prompts.prefix, virtual)
            for batch in self.batches(prompts.suffixes, extra=max_new_tokens):
                rows = [prompts.suffixes[i] for i in batch]
                read = self._logits_reader(scores, batch)
                for index, text in zip(
                    batch, self._greedy_batch(rows, prefix, max_new_tokens, is_decided, read), strict=True
                ):
                    texts[index] = text
        return texts

    def _logits_reader(self, scores: OptionScores | None, batch: list[int]) -> LogitsReader:
        """Finite next-token logits of these rows of the batch, with the second opinion where there is one."""

        def read(hidden: Tensor, rows: list[int]) -> Tensor:
            logits = finite(self.model.get_output_embeddings()(hidden))
            return logits if scores is None else scores.on_logits(logits, self.families, [batch[row] for row in rows])

        return read

    def _greedy_batch(
        self,
        rows: list[list[int]],
        prefix: SharedPrefix | None,
        max_new_tokens: int,
        is_decided: IsDecided,
        read: LogitsReader,
    ) -> list[str]:
        cache = DynamicCache(config=self.model.config)
        hidden, lengths, padded = self._forward(rows, prefix, cache)
        last = hidden[torch.arange(len(rows), device=hidden.device), lengths - 1]
        generated: list[list[int]] = [[] for _ in rows]
        active = torch.arange(len(rows), device=hidden.device)
        real = torch.arange(padded, device=hidden.device)[None] < lengths[:, None]
        for step in range(max_new_tokens):
            tokens = read(last, active.tolist()).argmax(-1)
            self.tokens_generated += len(active)
            keep = []
            for position, (row, token) in enumerate(zip(active.tolist(), tokens.tolist(), strict=True)):
                generated[row].append(token)
                if token not in self.end_tokens and not is_decided(self._text(generated[row])):
                    keep.append(position)
            if not keep or step + 1 == max_new_tokens:
                break
            kept = torch.tensor(keep, device=hidden.device)
            if len(keep) < len(active):
                cache.batch_select_indices(kept)
            active, tokens, real = active[kept], tokens[kept], real[kept]
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
            last = self._step(tokens, lengths[active] + step, prefix, cache, real)
        return [self._text(row) for row in generated]

    def _forward(
        self, rows: Sequence[Sequence[int]], prefix: SharedPrefix | None, cache: DynamicCache | None
    ) -> tuple[Tensor, Tensor, int]:
        ids, lengths = self.pad(rows)
        self.tokens_read += int(lengths.sum())
        positions = self._start(prefix, len(rows)) + torch.arange(ids.shape[1], device=ids.device)[None]
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        output = self._decoder()(input_ids=ids, position_ids=positions, shared_prefix=prefix, **options)
        return output.last_hidden_state, lengths, ids.shape[1]

    def _step(
        self, tokens: Tensor, own_positions: Tensor, prefix: SharedPrefix | None, cache: DynamicCache, real: Tensor
    ) -> Tensor:
        mask = torch.zeros(real.shape, dtype=self.model.dtype, device=real.device).masked_fill(~real, float("-inf"))
        output = self._decoder()(
            input_ids=tokens[:, None],
            position_ids=self._start(prefix, len(tokens)) + own_positions[:, None],
            past_key_values=cache,
            use_cache=True,
            shared_prefix=prefix,
            own_mask=mask[:, None, None, :],
        )
        return output.last_hidden_state[:, -1]

    def _start(self, prefix: SharedPrefix | None, rows: int) -> int | Tensor:
        """The position after its prefix of each of so many rows ``(rows, 1)``; one number where it is the same."""
        lengths = prefix.lengths if prefix else [0]
        if len(set(lengths)) == 1:
            return lengths[0]
        starts = torch.tensor(lengths, device=self.model.device)
        return starts.repeat_interleave(rows // len(lengths))[:, None]

    def _decoder(self) -> Any:
        return self.model.base_model


class FullPromptEngine(TorchEngine):
    """Reads every prompt whole through the model's own attention and transformers' `generate`, left-padded."""

    def inputs(self, rows: Sequence[Sequence[int]], virtual: Tensor | None) -> dict[str, Tensor]:
        """Left-padded embeddings and mask of whole prompts, a soft prompt right before each."""
        embeddings = self.model.get_input_embeddings()
        pieces = [embeddings(torch.tensor(list(row), device=self.model.device)) for row in rows]
        if virtual is not None:
            # PEFT lays out [virtual][pad][prompt], which answers wrongly in a batch; the pads belong in front.
            pieces = [torch.cat([virtual.to(piece), piece]) for piece in pieces]
        longest = max(len(piece) for piece in pieces)
        inputs = torch.zeros(len(rows), longest, pieces[0].shape[1], dtype=pieces[0].dtype, device=pieces[0].device)
        mask = torch.zeros(len(rows), longest, dtype=torch.long, device=inputs.device)
        for index, piece in enumerate(pieces):
            inputs[index, longest - len(piece) :] = piece
            mask[index, longest - len(piece) :] = 1
        self.tokens_read += int(mask.sum())
        return {"inputs_embeds": inputs, "attention_mask": mask}

    def option_log_probs(self, prompts: SplitPrompts, options: Sequence[int], virtual: Tensor | None) -> Tensor:
        rows = [prompts.prefix + suffix for suffix in prompts.suffixes]
        result = torch.empty(len(rows), len(options))
        with torch.no_grad():
            for batch in self.batches(rows):
                inputs = self.inputs([rows[i] for i in batch], virtual)
                positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
                hidden = self.model.base_model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
                result[batch] = self.read_options(hidden[:, -1], options).cpu()
        return result

    def greedy(
        self,
        prompts: SplitPrompts,
        max_new_tokens: int,
        is_decided: IsDecided,
        virtual: Tensor | None,
        scores: OptionScores | None = None,
    ) -> list[str]:
        rows = [prompts.prefix + suffix for suffix in prompts.suffixes]
        texts = [""] * len(rows)
        with torch.no_grad():
            for batch in self.batches(rows, extra=max_new_tokens):
                inputs = self.inputs([rows[i] for i in batch], virtual)
                tokens = self.model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    logits_processor=[PooledLogits(scores, self.families, batch)] if scores else None,
                    eos_token_id=sorted(self.end_tokens) or None,
                    pad_token_id=min(self.end_tokens, default=0),
                )
                for index, row in zip(batch, tokens.tolist(), strict=True):
                    texts[index], written = self.decided_text(row, is_decided)
                    self.tokens_generated += written
        return texts


def end_tokens_of(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> frozenset[int]:
    """The tokens after which a text has ended, by the tokenizer and the model's own settings."""
    configured = generation.eos_token_id if generation is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


def finite(logits: Tensor) -> Tensor:
    """The same logits. Raises FloatingPointError where one is not finite."""
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("the model's logits are not finite (a steering shift or training step too large?)")
    return logits
