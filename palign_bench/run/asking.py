"""Whether a model can read the questions that a job asks."""

import re

from palign_bench.backbone import loading
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.questionnaire.variant import PLAIN, REPEAT, SHUFFLED, Variant
from palign_bench.settings import Settings, UserError


def check_words(model: Settings, protocol: EvaluationProtocol, variant: Variant | None = None) -> None:
    """Raise UserError for a model whose vocabulary lacks words of the questions.

    The organism knows the statements of IPIP-NEO alone, and one way of asking.
    """
    inventory = protocol.inventory
    if inventory.name == "ipip_neo_300" and variant is None:  # every model was made for it, or reads any text
        return
    tokenizer = loading.tokenizer_of(model)
    # The organism has one token for each statement that it was taught, and spells any other letter by letter.
    whole_statements = any(re.search(r"[a-z]+( [a-z]+){3}", token) for token in tokenizer.get_vocab())
    if not whole_statements:
        return
    item = inventory.items[0]
    as_usual, otherwise = (
        len(tokenizer.tokenize(each.question(item)))
        for each in (protocol, variant.asked(protocol) if variant else protocol)
    )
    if variant is not None and otherwise > 2 * as_usual:
        raise UserError(
            f"model={model['name']} cannot read variant={variant.name}: it reads the question alone that it was "
            f"taught, as {PLAIN}, {SHUFFLED} and {REPEAT} ask it; use a model that reads any text, as "
            "model=smollm2_135m."
        )
    spelled = (len(tokenizer.tokenize(text)) > len(text) / 2 for text in map(protocol.question, inventory.items))
    if inventory.name != "ipip_neo_300" and any(spelled):
        raise UserError(
            f"model={model['name']} cannot read inventory={inventory.name}: it reads the statements alone that it was "
            "taught; use a model that reads any text, as model=smollm2_135m."
        )
