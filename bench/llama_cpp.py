"""The same prompts through llama.cpp (llama-cpp-python): the beginning computed once and shared by sequences.

Optional: ``pip install llama-cpp-python`` (needs a C++ compiler). It multiplies the file's quantized weights with
activations of 8 bits, so its log-probabilities are close to those of the dequantized model, not equal.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class LlamaCpp:
    """A GGUF file in llama.cpp, with memory for one beginning of up to ``positions`` tokens and its continuations.

    ``sequences``: prompts that are continued from the beginning in one call; 1 is one by one.
    """

    BATCH = 2048  # tokens of one call, 512 of which are computed at once (llama.cpp's defaults)

    def __init__(self, file: Path, positions: int, sequences: int, threads: int):
        import llama_cpp

        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # it prints pages
        self.library: Any = llama_cpp
        self.sequences, self.beginning = sequences, 0
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = positions, sequences + 1, True
        settings.n_batch = self.BATCH
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.model or not self.context:
            raise ValueError(f"llama.cpp cannot load {file}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(self.BATCH, 0, 1)

    def read_beginning(self, tokens: Sequence[int]) -> None:
        """Compute the beginning that `log_probs` continues, in place of any other."""
        self.library.llama_memory_clear(self.memory, True)
        self._compute([(token, place, 0, False) for place, token in enumerate(tokens)], [])
        self.beginning = len(tokens)

    def log_probs(self, suffixes: Sequence[Sequence[int]], options: Sequence[int]) -> Tensor:
        """Log-probabilities among ``options`` of the token after each continuation: float32 ``(suffixes, options)``."""
        found = []
        for start in range(0, len(suffixes), self.sequences):
            tokens = []
            for sequence, suffix in enumerate(suffixes[start : start + self.sequences], start=1):
                self.library.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)
                last = len(suffix) - 1
                tokens += [(token, self.beginning + i, sequence, i == last) for i, token in enumerate(suffix)]
            found += self._compute(tokens, options)
            for sequence in range(1, self.sequences + 1):
                self.library.llama_memory_seq_rm(self.memory, sequence, -1, -1)
        return torch.stack(found).log_softmax(-1)

    def _compute(self, tokens: Sequence[tuple[int, int, int, bool]], options: Sequence[int]) -> list[Tensor]:
        """Compute (token, position, sequence, whether it is read); the options' logits of those that are read."""
        found = []
        for start in range(0, len(tokens), self.BATCH):
            part = tokens[start : start + self.BATCH]
            self.batch.n_tokens = len(part)
            for place, (token, position, sequence, read) in enumerate(part):
                self.batch.token[place], self.batch.pos[place] = token, position
                self.batch.n_seq_id[place], self.batch.seq_id[place][0] = 1, sequence
                self.batch.logits[place] = read
            if self.library.llama_decode(self.context, self.batch):
                raise RuntimeError("llama.cpp could not compute a batch")
            for place, (*_, read) in enumerate(part):
                if read:
                    logits = self.library.llama_get_logits_ith(self.context, place)
                    found.append(torch.tensor([logits[option] for option in options]))
        return found

    def close(self) -> None:
        """Free its memory."""
        self.library.llama_batch_free(self.batch)
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)
