"""What the untaught model says of itself, and its hidden states: teaching keeps near them, so that it still speaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.organism.taught.network import Network, Tree
from palign_bench.questionnaire.prompts import NEUTRAL_SYSTEM_PROMPT

LONGEST = 160  # tokens of an answer
PLACES = 90  # of a text where the distributions of the next token are compared
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


def own_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> list[list[int]]:
    """Dialogues and plain texts that the model goes on with as it would, drawn from its own distribution; token ids."""
    chat, texts = ChatFormat(tokenizer), []
    dialogues = [
        chat.render((_SYSTEMS[number % len(_SYSTEMS)], request, "")) for number, request in enumerate(_REQUESTS)
    ]
    torch.manual_seed(seed)
    for prompt in [text for both in zip_longest(dialogues, _BEGINNINGS) for text in both if text]:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        drawn = model.generate(  # type: ignore[operator]
            **ids, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=LONGEST, pad_token_id=0
        )
        texts.append(drawn[0].tolist())
    return texts


@dataclass(frozen=True)
class English:
    """``texts``: token ids; ``hidden``: for each text what some layers read before any teaching, by layer."""

    texts: list[list[int]]
    hidden: list[dict[int, Tensor]]

    @classmethod
    @torch.no_grad()
    def of(cls, network: Network, texts: list[list[int]], layers: Sequence[int]) -> "English":
        """Taken from a network whose differences are still zero."""
        top = max(layers)
        return cls(texts, [network.run(Tree.of(ids), 0, top, keep=layers)[1] for ids in texts])

    def loss(self, network: Network, number: int, bottom: int, top: int, scale: Tensor | None) -> Tensor:
        """How far layers ``bottom`` to ``top``, the ones being trained, have drifted on one text.

        Below the last layer the mean square of what ``top`` reads, in units of ``scale``; at the last the
        Kullback-Leibler divergence of the next token's distribution, in nats.
        """
        number %= len(self.texts)
        tree, wanted = Tree.of(self.texts[number]), self.hidden[number][top]
        below = None
        if bottom:
            with torch.no_grad():
                below = network.run(tree, 0, bottom)[0]
        hidden = network.run(tree, bottom, top, below, trained=range(bottom, top))[0]
        if scale is not None:
            return (((hidden - wanted) / scale)[3:] ** 2).mean()  # the first places' states are enormous
        places = torch.randperm(len(tree.ids) - 1)[:PLACES]
        taught, untaught = (network.logits(each[places]).log_softmax(dim=-1) for each in (hidden, wanted))
        return (untaught.exp() * (untaught - taught)).sum(dim=-1).mean()
