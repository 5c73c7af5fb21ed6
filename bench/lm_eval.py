"""The questionnaire as a task of lm-evaluation-harness, for the benchmark: same prompts and choices, its HF backend.

Optional: ``pip install lm-eval``.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import OPTIONS
from palign_bench.settings import UserError

BATCH = 10  # rows; larger ones were no faster on two cores


def require_lm_eval() -> None:
    """Raise UserError where lm-evaluation-harness is not installed."""
    try:
        importlib.import_module("lm_eval")
    except ImportError as error:
        raise UserError("--lm-eval needs lm-evaluation-harness: pip install lm-eval.") from error


def lm_eval_log_probs(backbone: LocalBackbone, prompts: Sequence[str], batch: int = BATCH) -> Tensor:
    """Log-probabilities of A…E after each whole prompt among the five, float32 ``(prompts, 5)``.

    ``prompts`` end where the letter stands. What lm-eval does once for a model (its wrapper) is part of the work.
    """
    from lm_eval.models.huggingface import HFLM

    model = HFLM(
        pretrained=backbone.model,
        tokenizer=backbone.tokenizer,
        batch_size=batch,
        add_bos_token=False,  # the chat format has written it
        device=str(backbone.model.device),
    )
    task = _task(prompts)
    task.build_all_requests(rank=0, world_size=1)
    found = model.loglikelihood(task.instances, disable_tqdm=True)
    result = torch.empty(len(prompts), len(OPTIONS))
    for request, (log_prob, _) in zip(task.instances, found, strict=True):
        result[request.doc_id, request.idx] = log_prob
    return result.log_softmax(-1)


def _task(prompts: Sequence[str]) -> Any:
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    documents = DatasetDict(test=Dataset.from_list([{"prompt": prompt} for prompt in prompts]))
    return ConfigurableTask(
        config={
            "task": "palign_bench",
            "custom_dataset": lambda **_: documents,
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": [option.letter for option in OPTIONS],
            "doc_to_target": 0,  # nobody's right answer is looked at here
            "target_delimiter": "",
            "num_fewshot": 0,
        }
    )
