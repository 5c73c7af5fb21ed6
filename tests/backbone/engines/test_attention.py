"""Attention to a shared prefix, however it is computed, against plain softmax attention and plain forward passes."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from palign_bench.backbone.engines import attention
from palign_bench.backbone.engines.attention import SharedPrefix, attention_by_products, attention_with_normaliser
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.engines.check import arithmetic_deviation, why_not_exact
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.tokenizing import SplitPrompts
from tests.architectures import VOCABULARY, tiny_of
from tests.backbone.engines.test_products import prefer
from tests.tiny import tiny_tokenizer

OPTIONS = [7, 100, 201, 302, 370]
# Root mean square of the differences; outputs are of the order of 1, bfloat16 has a unit of 2^-8 there.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 6e-3}


def operands(queries: int, keys: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Of two rows and three heads, with scores large enough to matter (their standard deviation is 3)."""
    generator = torch.Generator().manual_seed(queries)
    made = [torch.randn(2, 3, n, width, generator=generator) for n in (queries, keys, keys)]
    return (3 * made[0]).to(dtype), made[1].to(dtype), made[2].to(dtype)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("queries", "keys", "width"), [(700, 1401, 64), (1, 1, 16), (37, 3, 5), (515, 130, 96)])
@pytest.mark.parametrize("way", ["products", "chosen", "float32"])
def test_outputs_and_normalisers_are_those_of_plain_attention(
    monkeypatch: pytest.MonkeyPatch, way: str, queries: int, keys: int, width: int, dtype: torch.dtype
) -> None:
    """The scale is no power of two for 96 and 5; 700 queries to 1,401 keys take two chunks, the last one shorter."""
    prefer(monkeypatch, float32_is_faster=way == "float32")
    query, key, value = operands(queries, keys, width, dtype)
    compute = attention_by_products if way == "products" else attention_with_normaliser
    with torch.no_grad():
        output, normaliser = compute(query, key, value, width**-0.5)
    scores = query.double() @ key.double().transpose(-1, -2) * width**-0.5
    expected = scores.softmax(-1) @ value.double()
    assert output.shape == query.shape and normaliser.dtype == torch.float32
    assert float((output - expected).square().mean().sqrt()) < ROUNDING[dtype]
    assert float((normaliser - scores.logsumexp(-1)).square().mean().sqrt()) < 2 * ROUNDING[dtype]


def test_products_serve_16_bits_and_many_scores_where_those_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []
    by_products = attention.attention_by_products
    monkeypatch.setattr(
        attention,
        "attention_by_products",
        lambda *arguments: calls.append(arguments[0].shape) or by_products(*arguments),
    )
    large, small = (700, 1401, 16), (700, 900, 16)
    for float32_is_faster, shape, dtype, expected in (
        (False, large, torch.bfloat16, 1),
        (False, small, torch.bfloat16, 0),
        (False, large, torch.float32, 0),
        (True, large, torch.bfloat16, 0),
    ):
        prefer(monkeypatch, float32_is_faster)
        calls.clear()
        with torch.no_grad():
            attention_with_normaliser(*operands(*shape, dtype), scale=0.25)
        assert len(calls) == expected


@pytest.mark.parametrize("prefix", [61, 1, 0])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_bigcode", "qwen3", "phi", "cohere"])
def test_products_answer_as_a_plain_forward_pass(monkeypatch: pytest.MonkeyPatch, name: str, prefix: int) -> None:
    """Grouped, multi-head and multi-query attention; everything by products, in chunks of a few rows."""
    monkeypatch.setattr(attention, "_worth_products", lambda query, key: True)
    monkeypatch.setattr(attention, "SCORES_IN_CACHE", 200)
    model = tiny_of(name)
    tokens = torch.randint(3, VOCABULARY, (120,), generator=torch.Generator().manual_seed(5)).tolist()
    prompts = SplitPrompts(tokens[:prefix], [tokens[70:73], tokens[73:74], tokens[74:99], tokens[60:63]])
    found = SharedPrefixEngine(model, tiny_tokenizer()).option_log_probs(Request(prompts), OPTIONS)
    with torch.no_grad():
        plain = [model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1, OPTIONS] for row in prompts.whole]
    torch.testing.assert_close(found, torch.stack(plain).float().log_softmax(-1), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("float32_is_faster", [True, False])
def test_16_bits_answer_as_float32_to_rounding(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, float32_is_faster: bool
) -> None:
    """A prefix of 900 tokens and 100 rows: layers and attention both take the way of large batches."""
    tokens = torch.randint(5, len(tiny.tokenizer), (2000,), generator=torch.Generator().manual_seed(5)).tolist()
    prompts = SplitPrompts(tokens[:900], [tokens[900 + 11 * i :][: 9 + i % 5] for i in range(100)])
    model = tiny.model.to(dtype)
    prefer(monkeypatch, float32_is_faster)
    engine = SharedPrefixEngine(model, tiny.tokenizer)
    found = engine.option_log_probs(Request(prompts), OPTIONS)
    assert why_not_exact(engine) is None
    model.float()
    expected = engine.option_log_probs(Request(prompts), OPTIONS)
    error = float((found - expected).square().mean().sqrt() / expected.std())
    assert 0 < error < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]


@pytest.mark.parametrize("float32_is_faster", [True, False])
def test_the_check_at_load_sees_the_arithmetic_of_large_batches(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, float32_is_faster: bool
) -> None:
    prefer(monkeypatch, float32_is_faster)
    model, plain = tiny.model.to(torch.bfloat16), attention.attention_with_normaliser
    arithmetic_deviation.cache_clear()
    assert (
        arithmetic_deviation(torch.bfloat16, model.device) < 0.015
    )  # two roundings to 8 bits, of averages smaller than what is averaged

    def scaled(*arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        output, normaliser = plain(*arguments, **named)
        return 1.1 * output, normaliser

    monkeypatch.setattr("palign_bench.backbone.engines.check.attention_with_normaliser", scaled)
    arithmetic_deviation.cache_clear()
    reason = why_not_exact(SharedPrefixEngine(model, tiny.tokenizer))
    arithmetic_deviation.cache_clear()
    assert reason is not None and reason.startswith("large matrix products err on this processor")


@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 64), (torch.bfloat16, 20), (torch.float32, 64)])
def test_on_cuda_outputs_and_normalisers_have_their_shapes(dtype: torch.dtype, width: int) -> None:
    """With tensors that have a device and no numbers: of CUDA's kernel PyTorch tells at least what it returns."""
    with FakeTensorMode():
        query, key, value = (torch.empty(6, 8, 10, width, dtype=dtype, device="cuda") for _ in range(3))
        output, normaliser = attention_with_normaliser(query, key, value, 0.1)
        assert (output.shape, output.dtype, output.device.type) == (query.shape, dtype, "cuda")
        assert (normaliser.shape, normaliser.dtype) == (query.shape[:-1], torch.float32)


ON_DEVICES = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)


def prefixes(
    dtype: torch.dtype, device: str, lengths: list[int], each: int = 1, n: int = 37, heads: int = 3
) -> tuple[torch.Tensor, SharedPrefix]:
    """Queries of ``each`` rows of each prefix, and the prefixes of three key-value heads, with pads in between."""
    generator = torch.Generator().manual_seed(0)
    shape = len(lengths), 3, max(lengths), 64
    keys, values = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
    queries = torch.randn(len(lengths) * each, heads, n, 64, generator=generator).to(device, dtype)
    return queries, SharedPrefix([keys], [values], lengths)


@pytest.mark.parametrize("heads", [8, 32])
def test_prefixes_of_different_lengths_have_their_shapes_on_cuda(heads: int) -> None:
    with FakeTensorMode():
        queries = torch.empty(6, heads, 10, 64, dtype=torch.bfloat16, device="cuda")
        keys, values = (torch.empty(3, 8, 7, 64, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        output, normaliser = SharedPrefix([keys], [values], [5, 7, 1]).seen_by(queries, 0, 0.1)
        assert (output.shape, output.dtype, output.device.type) == (queries.shape, torch.bfloat16, "cuda")
        assert (normaliser.shape, normaliser.dtype) == (queries.shape[:-1], torch.float32)


@ON_DEVICES
@pytest.mark.parametrize("lengths", [[130, 7, 64, 1], [70, 70], [33]])
@pytest.mark.parametrize(("each", "n", "heads"), [(1, 37, 3), (5, 3, 12), (4, 1, 12), (1, 1, 12)])
def test_every_row_attends_to_its_prefix_without_pads(
    device: str, lengths: list[int], each: int, n: int, heads: int
) -> None:
    """Many tokens, several rows, the steps of decoding, and one row alone; twice, as in every layer and step."""
    queries, prefix = prefixes(torch.bfloat16, device, lengths, each, n, heads)
    keys, values = prefix.keys[0].clone(), prefix.values[0].clone()
    for _ in range(2):
        output, normaliser = prefix.seen_by(queries, 0, 0.125)
        assert (output.shape, normaliser.shape) == (queries.shape, queries.shape[:-1])
        for row, query in enumerate(queries.double()):
            group = row // each
            key, value = (
                x[group, :, : lengths[group]].double().repeat_interleave(heads // 3, 0) for x in (keys, values)
            )
            scores = query @ key.transpose(-1, -2) * 0.125
            torch.testing.assert_close(normaliser[row].double(), scores.logsumexp(-1), atol=2e-2, rtol=0)
            torch.testing.assert_close(output[row].double(), scores.softmax(-1) @ value, atol=2e-2, rtol=2e-2)


@ON_DEVICES
@pytest.mark.parametrize(("heads", "n"), [(3, 37), (12, 37), (12, 1)])
def test_own_tokens_attend_causally_with_grouped_heads(device: str, heads: int, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(5, number, n, 64, generator=generator).to(device, torch.bfloat16) for number in (heads, 3, 3)]
    module = torch.nn.Module()
    with torch.no_grad():
        found, _ = attention.shared_prefix_attention(module, *made, None, 0.125)
    query, key, value = (each.double() for each in made)
    plain = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=0.125, enable_gqa=True
    )
    torch.testing.assert_close(found.transpose(1, 2).double(), plain, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("each", "n"), [(1, 37), (5, 3), (1, 1)])
def test_prefixes_in_one_call_are_those_one_by_one(monkeypatch: pytest.MonkeyPatch, each: int, n: int) -> None:
    """With plain attention in place of CUDA's kernel, as its signature says; twice, as in the steps of decoding."""

    def plain(query: Any, key: Any, value: Any, starts: Any, ends: Any, *sizes: Any, scale: float) -> Any:
        assert sizes == (max(each * n, 2), 130, 0.0, False, False)  # of single queries the kernel mixes up normalisers
        found = []
        for group in range(len(ends) - 1):
            own = query[starts[group] : starts[group + 1]].transpose(0, 1)
            its = slice(int(ends[group]), int(ends[group + 1]))
            shared = (x[its].transpose(0, 1).repeat_interleave(4, 0)[None] for x in (key, value))
            found.append(attention_with_normaliser(own[None], *shared, scale))
        outputs, normalisers = zip(*found, strict=True)
        return torch.cat([x[0].transpose(0, 1) for x in outputs]), torch.cat([x[0] for x in normalisers], 1)

    lengths = [130, 7, 64, 1]
    queries, prefix = prefixes(torch.float32, "cpu", lengths, each, n, heads=12)
    expected = prefixes(torch.float32, "cpu", lengths, each, n, heads=12)[1].seen_by(queries, 0, 0.125)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", plain)
    for _ in range(2):
        for found, own in zip(prefix._seen_in_one_call(queries, 0, 0.125), expected, strict=True):
            torch.testing.assert_close(found, own)
    assert prefix.keys[0].shape == prefix.values[0].shape == (sum(lengths), 3, 64)
