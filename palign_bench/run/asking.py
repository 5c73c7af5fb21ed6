"""What a job changes in what a method is told and asked, and whether a model can read the questions."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import PROTOCOLS, EvaluationProtocol
from palign_bench.questionnaire.variant import PLAIN, REPEAT, SHUFFLED, Variant
from palign_bench.settings import Settings, UserError

Parsed = TypeVar("Parsed")


def questions_of(settings: Settings, inventory: Inventory, seed: int) -> tuple[EvaluationProtocol, Variant | None]:
    """The protocol under which methods are aligned, and the variant in which they are asked. Raises UserError."""
    protocol = protocol_of(settings["protocol"], inventory)
    variant = variant_of(settings["variant"], protocol)
    return protocol if variant is None else variant.told(protocol, seed), variant


def protocol_of(settings: Mapping[str, Any], inventory: Inventory) -> EvaluationProtocol:
    """The protocol that is named, over this inventory. Raises UserError."""
    name = settings["name"]
    if name not in PROTOCOLS:
        raise UserError(f"protocol={name} does not exist; choose one of {', '.join(PROTOCOLS)}.")
    made = PROTOCOLS[name]
    if made.of_inventories is not None and inventory.name not in made.of_inventories:
        only = ", ".join(sorted(made.of_inventories))
        raise UserError(f"protocol={name} is defined for inventory={only} alone, not for {inventory.name}; "
                        "use protocol=corrected.")  # fmt: skip
    return made(inventory)


def intervention_of(asked: Any, inventory: Inventory) -> Intervention | None:
    """How the known answers are changed before a method is told. Raises UserError."""
    return _parsed("intervention", asked, Intervention.parse, inventory)


def _parsed(key: str, asked: Any, parse: Callable[[str, Inventory], Parsed], inventory: Inventory) -> Parsed | None:
    if asked is None or asked == "none":
        return None
    try:
        return parse(str(asked), inventory)
    except ValueError as error:
        raise UserError(f"{key}={asked}: {error}, or none.") from error


def check_intervention(aligners: Mapping[str, Aligner], intervention: Intervention | None) -> None:
    """Raise UserError where a method reads what no intervention changes, and would seem not to follow."""
    reading = [name for name, aligner in aligners.items() if "portrait" in aligner.needs]
    if intervention is not None and reading:
        raise UserError(
            f"intervention={intervention.name}: {reading[0]} reads the released portrait, which tells of the unchanged "
            "answers; use method.writer=template, or a model as the writer."
        )


def variant_of(asked: Any, protocol: EvaluationProtocol) -> Variant | None:
    """How held-out items are asked; None: all of them, as usual. Raises UserError."""
    variant = _parsed("variant", asked, Variant.parse, protocol.inventory)
    if variant is not None and protocol.reading.generates:
        raise UserError(f"variant={asked} is not defined for protocol={protocol.name}, which reads what is generated "
                        "by its letters; use protocol=corrected.")  # fmt: skip
    return variant


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
