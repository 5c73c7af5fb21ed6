"""Texts of the untaught model: teaching keeps near what it would say next in them, so that the model still speaks."""

from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.organism.taught.reader import Reader
from palign_bench.questionnaire.prompts import NEUTRAL_SYSTEM_PROMPT

LONGEST = 160  # tokens that a text goes on for
TEXTS = 16  # of similar length, read in one pass
_SYSTEMS = (NEUTRAL_SYSTEM_PROMPT, "You are a patient teacher.", "You are a friendly assistant who answers briefly.")


def own_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[list[int]]:
    """Dialogues and plain texts that the model goes on with as it would, drawn from its own distribution; token ids."""
    chat, openings = ChatFormat(tokenizer), yaml.safe_load(Path(__file__).with_name("openings.yaml").read_text("utf-8"))
    begun = [chat.render((system, request, "")) for request in openings["requests"] for system in _SYSTEMS]
    begun += [beginning for beginning in openings["beginnings"] for _ in _SYSTEMS]
    order = np.random.default_rng(seed).permutation(np.arange(count) % len(begun))
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    read = tokenizer([begun[place] for place in order], add_special_tokens=False, return_tensors="pt", padding=True)
    read = read.to(model.device)
    torch.manual_seed(seed)
    drawn = model.generate(  # type: ignore[operator]
        **read, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=LONGEST,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    length, texts = read["input_ids"].shape[1], []
    for row, told in zip(drawn.tolist(), read["attention_mask"].sum(dim=1).tolist(), strict=True):
        written = row[length:]
        if tokenizer.eos_token_id in written:
            written = written[: written.index(tokenizer.eos_token_id) + 1]
        texts.append(row[length - told : length] + written)
    return texts


class English:
    """The untaught model's texts in groups of similar length, and what its last layer wrote on them."""

    def __init__(self, reader: Reader, texts: list[list[int]]):
        """``reader``: with differences that are still zero."""
        ordered = sorted(texts, key=len)
        self.groups = []  # ids and which of them are no pads, (texts, length)
        for start in range(0, len(ordered), TEXTS):
            group = [torch.tensor(text) for text in ordered[start : start + TEXTS]]
            ids = pad_sequence(group, batch_first=True)
            self.groups.append((ids, torch.arange(ids.shape[1]) < torch.tensor([len(text) for text in group])[:, None]))
        with torch.no_grad():
            self.untaught = [reader.read(ids, *_plain(ids)) for ids, _ in self.groups]

    def drift(self, reader: Reader, number: int) -> Tensor:
        """Kullback-Leibler divergence of the next token's distribution from the untaught model's, in nats a token."""
        ids, real = self.groups[number]
        real = real.to(reader.device)
        hidden = reader.read(ids, *_plain(ids))
        taught, untaught = (reader.logits(each[real]).log_softmax(dim=-1) for each in (hidden, self.untaught[number]))
        return (untaught.exp() * (untaught - taught)).sum(dim=-1).mean()


def perplexity(reader: Reader, ids: list[int]) -> float:
    """Of a text, given its first token."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = reader.logits(reader.read(tokens, *_plain(tokens))[0, :-1])
    return float(functional.cross_entropy(logits, tokens[0, 1:].to(logits.device)).exp())


def _plain(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of texts and which tokens each sees: those up to it."""
    count, length = ids.shape
    at = torch.arange(length)
    return at.expand(count, -1), (at[:, None] >= at).expand(count, 1, -1, -1)
