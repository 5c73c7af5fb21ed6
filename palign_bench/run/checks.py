"""What is refused before any work starts: what a model, a method, people or settings cannot do, in one line."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.served import ServedBackbone
from palign_bench.backbone.tokenizing import encode
from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Item, Respondent, ipip_neo_300
from palign_bench.questionnaire.prompts import NEUTRAL_SYSTEM_PROMPT
from palign_bench.questionnaire.protocol import FREE_GENERATION, Corrected, EvaluationProtocol
from palign_bench.questionnaire.variant import PLAIN, REPEAT, SHUFFLED, Variant
from palign_bench.respondents import RespondentSource, is_stand_in
from palign_bench.settings import Settings, UserError, did_you_mean

_FORMAT_CHARACTERS = 400  # at most, of a chat format's own words and of the answer
MOST_STAND_INS = 20  # simulated people who may stand in for real ones without being asked for by name


def check_needs(aligners: Mapping[str, Aligner], model: Mapping[str, Any], repeats: int | None = None) -> None:
    """Raise UserError, before anything is loaded, when a method needs what the model's kind of backbone lacks.

    Also refuses a method that trains several people at once under ``cost=isolated``, which repeats one person's cell.
    """
    of_the_source = {"people", "held_out", "portrait"}
    of_the_weights = {"unquantized weights"} if model["quantization"] == "none" else set()
    served = model["engine"] == "vllm"
    at_hand = (ServedBackbone if served else LocalBackbone).capabilities | of_the_source | of_the_weights
    known = LocalBackbone.capabilities | of_the_source | {"unquantized weights"}
    for name, aligner in aligners.items():
        if unknown := sorted(aligner.needs - known):
            offered = f"nothing offers that{did_you_mean(unknown[0], known)}; choose among {', '.join(sorted(known))}"
            raise UserError(f"method={name} needs {unknown[0]}: {offered}.")
        if aligner.needs_backbone and (lacking := aligner.needs - at_hand):
            by = "model.engine=vllm does not open; use model.engine=auto" if served else f"model={model['name']} lacks"
            raise UserError(f"method={name} needs {', '.join(sorted(lacking))}, which {by}.")
        if repeats and aligner.cohort > 1:
            raise UserError(f"cost=isolated measures people one by one; method={name} needs training.cohort=1 for it.")


def check_anatomy(aligners: Mapping[str, Aligner], model: Settings, protocol: EvaluationProtocol) -> None:
    """Raise UserError for what the model cannot do, before its weights are loaded.

    A part that a method needs and that is not known exactly in this architecture, more heads than there are, or a
    context that does not hold the protocol's bare question.
    """
    if model["engine"] == "vllm":
        return  # nothing inside it is read, and vLLM checks lengths itself
    anatomy, stored = loading.anatomy_of(model), loading.stored_quantization(model)
    for name, aligner in aligners.items():
        if not aligner.needs_backbone:
            continue
        if stored is not None and "gradients" in aligner.needs:  # what it says of itself would not hold
            raise UserError(
                f"method={name} trains, and the weights of model={model['name']} are stored quantized ({stored}). Give "
                "the model as it was before; QLoRA, or model.quantization=nf4, quantizes it."
            )
        for need in sorted(aligner.needs & anatomy.lacking.keys()):
            raise UserError(f"method={name} needs {need}: {anatomy.lacking[need]}. Choose another model or method.")
        if "activations" not in anatomy.lacking:
            aligner.check_shape(len(anatomy.layers), anatomy.heads)
    _check_context(anatomy, model, protocol)
    if model["weights"] == "hub":
        _check_tokens(anatomy, model, protocol)


def _check_tokens(anatomy: Anatomy, model: Settings, protocol: EvaluationProtocol) -> None:
    """Raise UserError where the tokenizer writes what the model has no embedding of: on a GPU that ends the process."""
    tokenizer = loading.tokenizer_of(model)
    questions = " ".join(map(protocol.question, protocol.inventory.items))
    text = ChatFormat(tokenizer).render((NEUTRAL_SYSTEM_PROMPT, questions, FREE_GENERATION.opening))
    highest, rows = max(encode(tokenizer, text)), len(anatomy.model.get_input_embeddings().weight)
    if highest >= rows:
        raise UserError(
            f"model={model['name']}: its tokenizer writes {tokenizer.convert_ids_to_tokens(highest)!r} as token "
            f"{highest:,}, and the model has {rows:,} tokens; give it the tokenizer that it was trained with."
        )


def _check_context(anatomy: Anatomy, model: Settings, protocol: EvaluationProtocol) -> None:
    questions = [protocol.question(item) for item in protocol.inventory.items]
    longest = max(questions, key=len)
    # A token is a character or more: where so many would fit, the tokenizer need not be asked.
    if anatomy.context is None or len(NEUTRAL_SYSTEM_PROMPT) + len(longest) + _FORMAT_CHARACTERS < anatomy.context:
        return
    tokenizer = loading.tokenizer_of(model)
    text = ChatFormat(tokenizer).render((NEUTRAL_SYSTEM_PROMPT, longest, FREE_GENERATION.opening))
    positions = len(encode(tokenizer, text)) + FREE_GENERATION.max_new_tokens
    if positions > anatomy.context:
        raise UserError(
            f"model={model['name']}: its context holds {anatomy.context:,} tokens, and a question with its answer "
            f"takes {positions:,} before a word about the person. Choose another model."
        )


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

    def tokens(asked: EvaluationProtocol, item: Item) -> int:
        return len(tokenizer.tokenize(asked.question(item)))

    # A question that it was taught is one token and what stands around it, so that any other takes more.
    taught = Corrected(ipip_neo_300())
    most = tokens(taught, taught.inventory.items[0])
    if inventory.name != "ipip_neo_300" and any(tokens(protocol, item) > most for item in inventory.items):
        raise UserError(
            f"model={model['name']} cannot read inventory={inventory.name}: it reads the questions alone that it was "
            "taught; use a model that reads any text, as model=smollm2_135m."
        )
    if variant is not None and tokens(variant.asked(protocol), inventory.items[0]) > most:
        raise UserError(
            f"model={model['name']} cannot read variant={variant.name}: it reads the question alone that it was "
            f"taught, as {PLAIN}, {SHUFFLED} and {REPEAT} ask it; use a model that reads any text, as "
            "model=smollm2_135m."
        )


def check_portraits(
    aligners: Mapping[str, Aligner],
    people: Sequence[Respondent],
    source: str,
    intervention: Intervention | None = None,
    fewer: int | None = None,
) -> None:
    """Raise UserError when a method needs released portraits and a person has none, before anything is loaded.

    Also with an intervention or ``fewer`` known answers: a portrait describes all answers, unchanged.
    """
    without = [person.id for person in people if not person.portrait]
    for name in (name for name, aligner in aligners.items() if "portrait" in aligner.needs):
        if without:
            raise UserError(
                f"method={name} with released portraits: person {without[0]} of respondents={source} has none; "
                "use method.writer=self or respondents=papi."
            )
        if intervention is not None or fewer is not None:
            setting = f"intervention={intervention.name}" if intervention else f"known_answers={fewer}"
            what = "the unchanged" if intervention else "all known"
            raise UserError(
                f"{setting}: {name} reads the released portrait, which tells of {what} answers; use "
                "method.writer=template, or a model as the writer."
            )


def check_stand_ins(respondents: Mapping[str, Any], source: RespondentSource, people: int) -> None:
    """Raise UserError where many people are asked for, without saying whether simulated ones will do."""
    if people > MOST_STAND_INS and is_stand_in(respondents, source):
        raise UserError(
            f"respondents=auto: {source.description}; for {people} of them say so with respondents=simulated, or name "
            "the folder of the real ones with respondents=papi respondents.folder=FOLDER."
        )
