"""Texts of the untaught model: teaching keeps near what it would say next in them, so that the model still speaks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.organism.taught.reader import Reader
from palign_bench.questionnaire.prompts import NEUTRAL_SYSTEM_PROMPT

LONGEST = 160  # tokens that a text goes on for
TEXTS = 16  # of similar length, read in one pass
_SYSTEMS = (NEUTRAL_SYSTEM_PROMPT, "You are a patient teacher.", "You are a friendly assistant who answers briefly.")
_REQUESTS = (
    "What is the capital of France, and what is it known for?",
    "Write a short story about a lighthouse keeper.",
    "Explain photosynthesis to a child.",
    "How do I boil an egg?",
    "Give me three tips for better sleep.",
    "What is the difference between a virus and a bacterium?",
    "Write a polite email asking for a day off.",
    "Summarise the plot of Romeo and Juliet.",
    "How does a bicycle stay upright?",
    "List five vegetables and one fact about each.",
    "What should I pack for a week in the mountains?",
    "Explain what inflation means.",
    "Write a poem about autumn.",
    "Who was Marie Curie?",
    "How do I fix a leaking tap?",
    "What are the rules of chess?",
    "Describe a sunny day at the beach.",
    "Why is the sky blue?",
    "What is a good way to learn a language?",
    "Tell me a joke.",
    "Write a function in Python that adds two numbers.",
    "What is 17 plus 25?",
    "How do bees make honey?",
    "Explain the water cycle.",
    "What makes a good friend?",
    "Compare cats and dogs.",
    "Write instructions for planting a tree.",
    "What is democracy?",
    "Describe how to make a cup of tea.",
    "How do aeroplanes fly?",
    "What is the largest planet?",
    "Give advice to someone starting a new job.",
    "What causes earthquakes?",
    "Write a dialogue between two travellers.",
    "How can I save money on food?",
    "What is machine learning?",
    "Describe a busy market.",
    "Why do leaves change colour?",
    "Who wrote Hamlet?",
    "How do you play the guitar as a beginner?",
)
_BEGINNINGS = (
    "The",
    "In the early years of the century,",
    "When I was young,",
    "Scientists have found that",
    "Once upon a time",
    "The company announced",
    "Many people think that",
    "On a cold morning in March,",
    "To make bread,",
    "The history of the city",
    "She opened the door and",
    "A good teacher",
    "According to the report,",
    "The river flows",
    "My grandfather used to say",
    "In mathematics,",
    "During the war,",
    "The best way to",
    "Birds that live near the sea",
    "He had never seen",
    "For hundreds of years,",
    "The government",
    "It is often said that",
    "After the rain,",
    "The old house",
    "Children learn",
    "Last summer,",
    "In modern cities,",
    "The king",
    "Although the weather was bad,",
    "Water is",
    "Music has always",
)


def own_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[list[int]]:
    """Dialogues and plain texts that the model goes on with as it would, drawn from its own distribution; token ids."""
    chat = ChatFormat(tokenizer)
    begun = [chat.render((system, request, "")) for request in _REQUESTS for system in _SYSTEMS]
    begun += [beginning for beginning in _BEGINNINGS for _ in _SYSTEMS]
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
        self.groups = [_padded(ordered[start : start + TEXTS]) for start in range(0, len(ordered), TEXTS)]
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


def _padded(texts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    length = max(map(len, texts))
    ids = torch.tensor([text + [0] * (length - len(text)) for text in texts])
    return ids, torch.arange(length) < torch.tensor([len(text) for text in texts])[:, None]


def _plain(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of texts and which tokens each sees: those up to it."""
    count, length = ids.shape
    at = torch.arange(length)
    return at.expand(count, -1), (at[:, None] >= at).expand(count, 1, -1, -1)
