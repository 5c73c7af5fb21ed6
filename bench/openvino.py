"""The same prompts through OpenVINO GenAI, which keeps the beginning of a prompt in its cache.

Optional: ``pip install openvino-genai``. It tells no log-probabilities, so the letter that it writes is compared.
"""

from collections.abc import Sequence
from pathlib import Path


class OpenVino:
    """A GGUF file in OpenVINO GenAI on the CPU, batching continuously, with prefix caching."""

    def __init__(self, file: Path, threads: int):
        import openvino_genai as genai

        settings = genai.SchedulerConfig()
        settings.cache_size = 1  # GiB
        settings.enable_prefix_caching = True
        settings.max_num_batched_tokens = 2048
        self.pipeline = genai.LLMPipeline(
            str(file), "CPU", scheduler_config=settings, INFERENCE_NUM_THREADS=threads, NUM_STREAMS=1
        )
        self.generation = genai.GenerationConfig(max_new_tokens=1, do_sample=False, apply_chat_template=False)

    def letters(self, texts: Sequence[str]) -> list[str]:
        """What it writes after each whole prompt: one token."""
        return [str(text).strip() for text in self.pipeline.generate(list(texts), self.generation).texts]
