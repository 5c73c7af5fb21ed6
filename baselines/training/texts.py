"""What a trained method reads: the question as the protocol asks it, and the answer as the protocol reads it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.tokenizing import encode, shared_length
from palign_bench.questionnaire.inventory import OPTIONS, Item, Option
from palign_bench.questionnaire.protocol import FREE_GENERATION
from palign_bench.settings import UserError

_PADS_TO_PREFER = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]")


def answer_text(value: int, options: Sequence[Option] = OPTIONS) -> str:
    """The assistant's turn: opened as both protocols open it, then the option as the question lists it.

    "Option (B). Moderately Accurate" has the letter where both protocols read it, and the label that PPO's reward looks
    for.
    """
    option = next(option for option in options if option.value == value)
    return f"{FREE_GENERATION.opening} ({option.letter}). {option.label}"


@dataclass(frozen=True)
class ItemTexts:
    """One item as token ids.

    ``turn``: up to where the assistant's turn begins. ``answers``: by option value, what follows up to the end of the
    turn. ``rollout``: the prompt from which an on-policy method samples, opened as a free generation is.
    """

    turn: list[int]
    answers: dict[int, list[int]]
    rollout: list[int]
    rollout_text: str


@dataclass(frozen=True)
class TrainingTexts:
    """Every known item as token ids, made once per run, and the tokenizer for the trainers."""

    items: Mapping[int, ItemTexts]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(cls, backbone: LocalBackbone) -> TrainingTexts:
        """Tokenize the known items under the neutral system prompt.

        Raises UserError where no pad token is free, or no token ends an answer.
        """
        tokenizer, inventory = backbone.tokenizer, backbone.protocol.inventory
        if tokenizer.eos_token is None:
            raise UserError("the model's tokenizer has no token that ends an answer: name its eos_token in "
                            "tokenizer_config.json.")  # fmt: skip
        items = {}
        for item in inventory.select(inventory.known):

            def written(opening: str, item: Item = item) -> str:
                return backbone.chat.render(backbone.dialogue(Alignment(), item, opening))

            told = {option.value: answer_text(option.value, inventory.options) for option in inventory.options}
            whole = {v: encode(tokenizer, written(text) + str(tokenizer.eos_token)) for v, text in told.items()}
            # Some tokenizers merge across the boundary: the turn ends where all answers still agree with it.
            turn = encode(tokenizer, written(""))
            turn = turn[: min(shared_length([turn, ids]) for ids in whole.values())]
            rollout_text = written(FREE_GENERATION.opening)
            items[item.number] = ItemTexts(
                turn=turn,
                answers={value: ids[len(turn) :] for value, ids in whole.items()},
                rollout=encode(tokenizer, rollout_text),
                rollout_text=rollout_text,
            )
        used = {i for texts in items.values() for i in (*texts.turn, *(i for a in texts.answers.values() for i in a))}
        return cls(items, trainers_tokenizer(tokenizer, used))


def trainers_tokenizer(tokenizer: PreTrainedTokenizerBase, used: Iterable[int]) -> PreTrainedTokenizerBase:
    """A copy that pads on the left with a token that no training text contains.

    TRL's PPO masks whatever equals the pad token, which often is the end of a turn. Raises UserError for none to spare.
    """
    used = set(used) | {tokenizer.eos_token_id}
    spare = {token: i for token, i in tokenizer.get_added_vocab().items() if i not in used}
    own = [] if tokenizer.pad_token_id in used | {None} else [str(tokenizer.pad_token)]
    preferred = [token for token in _PADS_TO_PREFER if token in spare]
    pads = own + preferred + sorted(spare, key=spare.__getitem__, reverse=True)
    if not pads:
        raise UserError(
            "the model's tokenizer has no special token to pad with besides its end of turn; choose another model."
        )
    copied = copy.deepcopy(tokenizer)
    copied.pad_token = pads[0]
    copied.padding_side = "left"
    return copied
