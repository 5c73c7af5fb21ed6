"""The questionnaire as a task of lm-evaluation-harness, for the benchmark: same prompts and choices, its HF backend.

Optional: ``pip install lm-eval``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import OPTIONS

BATCH = 10  # rows; larger ones were no faster on two cores


class LmEval:
    """The backbone's model, or ``model``: the same in another dtype, in lm-eval's HF backend."""

    def __init__(self, backbone: LocalBackbone, model: nn.Module | None = None):
        from lm_eval.models.huggingface import HFLM

        self.harness = HFLM(
            pretrained=model or backbone.model,
            tokenizer=backbone.tokenizer,
            batch_size=BATCH,
            add_bos_token=False,  # the chat format has written it
            device=str(backbone.model.device),
        )

    def log_probs(self, task: Any) -> Tensor:
        """Log-probabilities of A…E after each whole prompt of a `task` among the five, float32 ``(prompts, 5)``."""
        task.build_all_requests(rank=0, world_size=1)
        found = self.harness.loglikelihood(task.instances, disable_tqdm=True)
        result = torch.empty(len(found) // len(OPTIONS), len(OPTIONS))
        for request, (log_prob, _) in zip(task.instances, found, strict=True):
            result[request.doc_id, request.idx] = log_prob
        return result.log_softmax(-1)

    @staticmethod
    def task(prompts: Sequence[str]) -> Any:
        """A task of these prompts, which end where the letter stands."""
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
