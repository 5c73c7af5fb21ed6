"""Every architecture against a plain forward pass of the whole text, as `docs/reference/architectures.md` says."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.attention import SUPPORTED_MODEL_TYPES, why_no_shared_prefix
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.engines.check import why_not_exact
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.hidden import hidden_states
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.completeness import check_files, load_whole
from palign_bench.backbone.loading.settings import ModelError
from palign_bench.backbone.parts.heads import recorded_heads, shifted_heads
from palign_bench.backbone.tokenizing import SplitPrompts
from tests.architectures import ARCHITECTURES, VOCABULARY, tiny_of
from tests.tiny import tiny_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "architectures.md"
OPTIONS = [7, 100, 201, 302, 403]
TOLERANCE = 2e-5  # of log-probabilities in float32


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tiny models of a few settings make their libraries talk."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers_logging.set_verbosity(before)


@cache
def model_of(name: str) -> PreTrainedModel:
    return tiny_of(name)


def split(prefix: int) -> SplitPrompts:
    """Prompts shorter and longer than the tiny models' windows and unscaled contexts, two of them of one length."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, VOCABULARY, (200,), generator=generator).tolist()
    return SplitPrompts(tokens[:prefix], [tokens[100:104], tokens[104:108], tokens[108:133]])


def plain(model: PreTrainedModel, row: list[int]) -> Tensor:
    """The oracle: the model's own logits of one whole text, its rotary angles as if nothing had been read before."""
    Anatomy(model).forget_lengths()
    with torch.no_grad():
        return model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float()


def expected_log_probs(model: PreTrainedModel, prompts: SplitPrompts) -> Tensor:
    return torch.stack([plain(model, row)[-1, OPTIONS].log_softmax(-1) for row in prompts.whole])


@cache
def exact_engines(name: str) -> list[str]:
    model, tokenizer = model_of(name), tiny_tokenizer()
    engines = [FullPromptEngine(model, tokenizer)]
    if why_no_shared_prefix(engines[0].anatomy) is None:
        engines.append(SharedPrefixEngine(model, tokenizer))
    return [type(engine).__name__ for engine in engines if why_not_exact(engine) is None]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probabilities_are_those_of_a_plain_forward_pass(name: str) -> None:
    model, tokenizer = model_of(name), tiny_tokenizer()
    engines = {"FullPromptEngine": FullPromptEngine, "SharedPrefixEngine": SharedPrefixEngine}
    exact = exact_engines(name)
    assert exact or name == "rwkv", "refused: transformers continues its state wrongly"
    for prefix in (60, 0):
        prompts = split(prefix)
        expected = expected_log_probs(model, prompts)
        for engine in exact:
            found = engines[engine](model, tokenizer).option_log_probs(Request(prompts), OPTIONS)
            torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=1e-5)
    assert (expected_log_probs(model, split(60)) - expected).abs().max() > 1e-3, "the prefix must matter"


class Products(TorchFunctionMode):
    """Keeps the results of matrix products and of fused attention: heads' outputs are among them, however computed."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") in ("matmul", "__matmul__", "bmm", "scaled_dot_product_attention"):
            self.kept.append(result)
        return result


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_heads_are_the_slices_of_the_output_projections_input(name: str) -> None:
    """PAS reads and shifts these slices. A shift of them is a bias of W_o d, wherever the matrix lies."""
    model = model_of(name)
    anatomy = Anatomy(model)
    if "activations" in anatomy.lacking:
        with pytest.raises(ValueError, match=anatomy.model_type):
            anatomy.output_projections  # noqa: B018
        return
    ids = torch.tensor([split(0).suffixes[2]])
    n, heads, width = ids.shape[1], anatomy.heads, anatomy.head_width
    with torch.no_grad(), Products() as products, recorded_heads(anatomy, torch.tensor([n - 1])) as recorded:
        model(input_ids=ids, use_cache=False)
    outputs = [each.reshape(heads, n, width)[:, -1] for each in products.kept if each.numel() == heads * n * width]
    assert len(recorded) == len(anatomy.layers)
    for layer in recorded:
        assert any(torch.allclose(layer.view(heads, width), each, atol=1e-5) for each in outputs)
    shifts = torch.randn(len(recorded), heads * width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        with shifted_heads(anatomy, shifts):
            shifted = model(input_ids=ids, use_cache=False).logits
        with biased(anatomy, shifts):
            expected = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(shifted, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_head_that_is_offered_depends_on_another_heads_values(name: str) -> None:
    """A layer's last value rows are its last head's: doubled, they must not change what the first head puts out."""
    model = deepcopy(model_of(name))
    anatomy, ids, mixed = Anatomy(model), torch.tensor([split(0).suffixes[2]]), False
    for layer in anatomy.layers:
        modules = dict(layer.named_modules())
        values = [each for path, each in modules.items() if path.endswith(("v_proj", "kv_b_proj", "qkv_proj"))]
        outputs = [each for path, each in modules.items() if path.endswith(("self_attn.o_proj", "self_attn.out_proj"))]
        if not values or not outputs:
            continue
        with torch.no_grad(), first_heads(outputs[0]) as found:
            for _ in range(2):
                model(input_ids=ids, use_cache=False)
                values[0].weight[-8:] *= 2
        mixed |= not torch.allclose(*found, atol=1e-6)
    assert mixed == (name in ("bitnet", "diffllama", "minimax"))
    assert not mixed or "mixes its heads' outputs" in anatomy.lacking["activations"]


@contextmanager
def first_heads(projection: torch.nn.Module) -> Iterator[list[Tensor]]:
    """The first head's eight numbers as they reach this module, pass by pass."""
    found: list[Tensor] = []
    handle = projection.register_forward_pre_hook(lambda _, args: found.append(args[0][..., :8].clone()))
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def biased(anatomy: Anatomy, shifts: Tensor) -> Iterator[None]:
    """W_o d added to what every output projection returns; Conv1D keeps its matrix transposed."""
    handles = []
    for projection, shift in zip(anatomy.output_projections, shifts, strict=True):
        weight = projection.weight if hasattr(projection, "in_features") else projection.weight.T
        handles.append(projection.register_forward_hook(lambda _, __, out, bias=weight @ shift: out + bias))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_are_those_that_the_model_tells(name: str) -> None:
    model, tokenizer = model_of(name), tiny_tokenizer()
    engine = FullPromptEngine(model, tokenizer)
    if not exact_engines(name):
        return  # refused as a whole
    if "hidden states" in engine.anatomy.lacking:
        with pytest.raises(ValueError, match=engine.anatomy.model_type):
            hidden_states(engine, ["I worry."], [1])
        return
    texts = ["I worry about things.", "I do not worry about many things at all, in truth.", "Yes"]
    found = hidden_states(engine, texts, [1, 2])
    for text, states in zip(texts, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        engine.anatomy.forget_lengths()
        with torch.no_grad():
            told = engine.anatomy.decoder(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
        first = told[0 if "mamba" in name else 1]  # Mamba's do not begin with the embeddings
        torch.testing.assert_close(states[0], first[0, -1], atol=1e-4, rtol=1e-4)
        if len(engine.anatomy.layers) == 2:
            torch.testing.assert_close(states[1], told[-1][0, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_model_is_whole_and_without_one_tensor_it_is_not(name: str, tmp_path: Path) -> None:
    """Also where transformers puts the tensors of a file together, as those of experts."""
    model = model_of(name)
    model.save_pretrained(tmp_path)
    check_files(str(tmp_path), None)
    loaded = dict(load_whole(tmp_path, dtype=torch.float32).named_parameters())
    assert all(torch.equal(loaded.pop(key), value) for key, value in model.named_parameters()) and not loaded
    tensors = load_file(tmp_path / "model.safetensors")
    lost = max(name for name in tensors if re.search(r"\.1\..*weight", name))  # one of the second layer
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"cannot be read from its files|cannot be put together"):
        check_files(str(tmp_path), None)


def test_every_architecture_whose_prefix_is_shared_is_tested() -> None:
    tested = {model_of(name).config.model_type for name in ARCHITECTURES if "SharedPrefixEngine" in exact_engines(name)}
    assert tested == SUPPORTED_MODEL_TYPES and len(ARCHITECTURES) >= 45


def test_the_page_says_what_is_exact() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.backbone.test_architectures writes it"


def page() -> str:
    """`docs/reference/architectures.md`."""
    lines = [
        "# Which models are read exactly",
        "",
        "Each row is a tiny model of that architecture with random weights, whose option log-probabilities were",
        "compared in float32 with a plain forward pass of the whole text (`tests/backbone/test_architectures.py`",
        "writes this page). Whatever is loaded, listed here or not, is checked in the same way before it answers.",
        "",
        "- **full prompts**: `model.engine=full_prompts`, and what `auto` falls back to.",
        "- **shared prefix**: `model.engine=shared_prefix`, what `auto` prefers; several times faster.",
        "- **PAS** needs a known output projection of heads in every layer, the **readout** the layers' outputs.",
        "",
        "| architecture | full prompts | shared prefix | PAS | readout |",
        "|---|---|---|---|---|",
    ]
    for name in ARCHITECTURES:
        anatomy, exact = Anatomy(model_of(name)), exact_engines(name)
        cells = [engine in exact for engine in ("FullPromptEngine", "SharedPrefixEngine")]
        cells += [bool(exact) and need not in anatomy.lacking for need in ("activations", "hidden states")]
        lines.append(" | ".join([f"| {name}", *("yes" if cell else "no" for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    transformers_logging.set_verbosity_error()
    PAGE.write_text(page(), encoding="utf-8")
