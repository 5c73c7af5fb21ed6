"""What is known of a model: what it computes after its head, how long it may read, and what is refused."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.base import likeliest
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.adapters import adapter_tensors, applied_adapter, peft_settings
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.settings import UserError
from tests.architectures import VOCABULARY, tiny_of
from tests.protocols import AS_RELEASED, CORRECTED
from tests.tiny import tiny_tokenizer

OPTIONS = [7, 100, 201, 302, 403]
PROMPTS = SplitPrompts([5, 9, 11, 20, 33], [[40, 41], [50, 51, 52], [60]])


def test_option_logits_are_not_rounded_in_bfloat16(tiny: LoadedModel) -> None:
    """Hidden states as the model computes them, and the options' rows of its head in float64."""
    model, options = tiny.model.to(torch.bfloat16), [7, 100, 201, 302, 370]
    hidden = torch.randn(5000, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exact = (hidden.double() @ model.lm_head.weight[options].double().T).log_softmax(-1)
    found = Anatomy(model).option_log_probs(hidden, options)
    assert found.dtype == torch.float32 and (found - exact).abs().max() < 1e-4
    rounded = model.lm_head(hidden)[:, options].float()
    tied = dict(enumerate(rounded.tolist()))
    assert AnswerSheet((), {}, tied).ties > 0 == AnswerSheet((), {}, dict(enumerate(found.tolist()))).ties


def test_ties_are_counted_and_go_to_the_first_option() -> None:
    rows = {1: [-1.0, -2.0, -1.0, -3.0, -4.0], 2: [-1.0, -2.0, -2.0, -2.0, -9.0], 3: [-5.0, -1.0, -1.0, -1.0, -7.0]}
    assert (
        AnswerSheet((), {}, rows).ties == 2 and likeliest(rows) == {1: 5, 2: 5, 3: 4} and AnswerSheet((), {}).ties == 0
    )


@pytest.mark.parametrize("kind", [SharedPrefixEngine, FullPromptEngine])
def test_an_answer_sheet_tells_its_ties(
    tiny: LoadedModel, inventory: Inventory, kind: type[FullPromptEngine | SharedPrefixEngine]
) -> None:
    with torch.no_grad():
        tiny.model.lm_head.weight.zero_()
    items = inventory.select(inventory.held_out[:4])
    backbone = LocalBackbone(tiny, CORRECTED, kind(tiny.model, tiny.tokenizer))
    sheet = backbone.answer(Alignment(), items)
    assert sheet.ties == 4 and set(sheet.answers.values()) == {5}


@pytest.mark.parametrize("kind", [SharedPrefixEngine, FullPromptEngine])
def test_text_is_not_written_from_logits_that_are_no_numbers(
    tiny: LoadedModel, inventory: Inventory, kind: type[FullPromptEngine | SharedPrefixEngine]
) -> None:
    with torch.no_grad():
        tiny.model.model.norm.weight.fill_(float("nan"))
    backbone = LocalBackbone(tiny, AS_RELEASED, kind(tiny.model, tiny.tokenizer))
    with pytest.raises(FloatingPointError):
        backbone.answer(Alignment(), inventory.select(inventory.held_out[:2]))


@pytest.mark.parametrize("kind", [SharedPrefixEngine, FullPromptEngine])
def test_a_models_own_generation_settings_have_no_say(
    tiny: LoadedModel, inventory: Inventory, kind: type[FullPromptEngine | SharedPrefixEngine]
) -> None:
    items = inventory.select(inventory.held_out[:5])
    asked = (Alignment(), "You are kind.", "Who are you?", 12)

    def written() -> tuple[object, str, str]:
        backbone = LocalBackbone(tiny, AS_RELEASED, kind(tiny.model, tiny.tokenizer))
        greedy = backbone.generate(*asked, 0.0)
        torch.manual_seed(3)
        return backbone.answer(Alignment(), items).texts, greedy, backbone.generate(*asked, 1.0)

    before = written()
    tiny.model.generation_config.update(
        num_beams=3, repetition_penalty=5.0, forced_eos_token_id=9, min_p=0.9, do_sample=True, top_k=2, temperature=7.0
    )
    settings = tiny.model.generation_config.to_dict()
    assert written() == before
    assert tiny.model.generation_config.to_dict() == settings


@pytest.mark.parametrize("kind", [SharedPrefixEngine, FullPromptEngine])
def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(
    kind: type[FullPromptEngine | SharedPrefixEngine],
) -> None:
    model = tiny_of("llama")
    assert Anatomy(model).context == 512
    engine = kind(model, tiny_tokenizer())
    tokens = [(7 * i) % VOCABULARY for i in range(512)]
    assert engine.option_log_probs(Request(SplitPrompts(tokens[:500], [tokens[500:]])), OPTIONS).shape == (1, 5)
    for request in (
        Request(SplitPrompts(tokens, [[1], [2, 3]])),
        Request(SplitPrompts(tokens[:500], [[1]]), virtual=torch.zeros(13, 32)),
        Request(SplitPrompts(tokens[:500], [[1]]), max_new_tokens=13),
    ):
        with pytest.raises(UserError, match="a prompt takes 514 tokens, and the model's context holds 512"):
            engine.option_log_probs(request, OPTIONS)
        with pytest.raises(UserError, match="takes 514 tokens"):
            engine.continuations(request)


def test_heads_of_several_widths_are_refused_in_one_line() -> None:
    """Gemma 4's layers that see everything have wider heads; where they are as wide as the others, heads are known."""
    reason = "the attention heads of model_type gemma4_text differ from layer to layer"
    assert Anatomy(tiny_of("gemma4_text")).lacking == {"activations": reason}
    assert Anatomy(tiny_of("gemma4_text", global_head_dim=8)).head_width == 8


def test_the_context_is_the_configurations() -> None:
    def context(**settings: object) -> int | None:
        config = LlamaConfig(num_hidden_layers=0, vocab_size=8, hidden_size=32, intermediate_size=8, **settings)
        return Anatomy(LlamaForCausalLM(config)).context

    rotary = {"rope_theta": 10000.0, "factor": 4.0}
    assert context(max_position_embeddings=2048) == 2048
    assert context(max_position_embeddings=2048, rope_parameters={"rope_type": "linear", **rotary}) == 8192
    stretched = {"rope_type": "yarn", "original_max_position_embeddings": 2048, **rotary}
    assert context(max_position_embeddings=8192, rope_parameters=stretched) == 8192
    assert Anatomy(GPT2LMHeadModel(GPT2Config(n_layer=0, n_positions=77, vocab_size=8, n_embd=12))).context == 77


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "falcon", "opt", "phi", "bloom", "mpt", "gemma2"])
def test_an_adapter_answers_as_in_a_plain_forward_pass(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_of(name)
    torch.manual_seed(1)
    trained = get_peft_model(
        tiny_of(name), LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for tensor_name, parameter in trained.named_parameters():
        if "lora_B" in tensor_name:
            torch.nn.init.normal_(parameter)
    settings = peft_settings(trained.peft_config["default"])
    engine = FullPromptEngine(model, tiny_tokenizer())
    bare = engine.option_log_probs(Request(PROMPTS), OPTIONS)
    with applied_adapter(model, adapter_tensors(trained), "peft", settings):
        found = engine.option_log_probs(Request(PROMPTS), OPTIONS)
    with torch.no_grad():
        expected = torch.stack(
            [trained(input_ids=torch.tensor([row])).logits[0, -1, OPTIONS].log_softmax(-1) for row in PROMPTS.whole]
        )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert (found - bare).abs().max() > 1e-3
    torch.testing.assert_close(engine.option_log_probs(Request(PROMPTS), OPTIONS), bare, atol=0, rtol=0)


def test_state_space_layers_take_no_adapter() -> None:
    assert "gradients" in Anatomy(tiny_of("mamba")).lacking and "hidden states" not in Anatomy(tiny_of("mamba")).lacking


def test_a_model_inside_another_is_not_looked_into_nor_trained() -> None:
    lacking = Anatomy(tiny_of("gemma3")).lacking
    assert set(lacking) == {"activations", "hidden states", "gradients"}
    assert all("gemma3 wraps its language model" in reason for reason in lacking.values())
