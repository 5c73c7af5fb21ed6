"""One way of writing text for every method: greedy or plain sampling, whatever a model's own settings say."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig


@contextmanager
def own_decoding(model: Any, end_tokens: Collection[int]) -> Iterator[None]:
    """Within the block ``model.generate`` follows its arguments alone; a text ends at ``end_tokens``.

    transformers (and TRL's rollouts) fill whatever is not given from the model's ``generation_config``: beams,
    repetition penalty, forced tokens, ``min_p``. Methods would then answer under settings that differ by model.
    """
    ends = sorted(end_tokens)
    before = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0
    )
    try:
        yield
    finally:
        model.generation_config = before
