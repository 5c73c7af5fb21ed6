"""SmolLM2 with a LoRA adapter that is being taught: passes over padded texts, and float32 masters of the adapter."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from palign_bench.settings import UserError

RANK, ALPHA = 16, 32
ADAPTER = "adapter_model.safetensors"
MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Reader:
    """``masters``: the adapter's values in float32, since bfloat16 cannot hold an optimizer's small steps."""

    def __init__(self, model: PreTrainedModel, base_name: str):
        model.requires_grad_(False)
        model.set_attn_implementation("sdpa")
        # The caller's seed decides the adapter's first factors.
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(MAPS), task_type="CAUSAL_LM")
        self.peft = get_peft_model(model, config, autocast_adapter_dtype=False)
        self.model, self.base_name, self.device = model, base_name, model.device
        self.trained: list[Tensor] = [each for each in self.peft.parameters() if each.requires_grad]
        self.masters = [each.detach().float().clone() for each in self.trained]

    def read(self, ids: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """What the last layer wrote, after its norm, ``(texts, length, hidden)``.

        ``ids``, ``positions`` ``(texts, length)``; ``seen`` ``(texts, 1, length, length)``: which tokens each sees.
        """
        seen = seen.to(self.device)
        hidden_scores = torch.zeros(seen.shape, dtype=self.model.dtype, device=self.device)
        hidden_scores.masked_fill_(~seen, torch.finfo(self.model.dtype).min)  # once; as a mask, every layer converts it
        inner = self.model.model
        hidden: Tensor = inner(
            input_ids=ids.to(self.device),
            position_ids=positions.to(self.device),
            attention_mask=hidden_scores,
            use_cache=False,
        ).last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """In float32, ``(places, vocabulary)``."""
        return functional.linear(hidden.float(), self.model.lm_head.weight.float())

    def take_gradients(self) -> None:
        """Move what a backward pass left to the masters."""
        for master, own in zip(self.masters, self.trained, strict=True):
            master.grad = None if own.grad is None else own.grad.float()
            own.grad = None

    @torch.no_grad()
    def take_masters(self) -> None:
        """After an optimizer's step."""
        torch._foreach_copy_(self.trained, self.masters)

    @torch.no_grad()
    def restore(self, masters: list[Tensor]) -> None:
        torch._foreach_copy_(self.masters, [each.to(self.device) for each in masters])
        self.take_masters()

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go on from the adapter that `save` wrote. Raises UserError for another shape of adapter."""
        kept = load_file(folder / ADAPTER)
        own = get_peft_model_state_dict(self.peft)
        if {name: each.shape for name, each in kept.items()} != {name: each.shape for name, each in own.items()}:
            raise UserError(f"{folder / ADAPTER} holds another adapter than rank {RANK} on {', '.join(MAPS)}.")
        for name, each in own.items():
            each.copy_(kept[name])
        torch._foreach_copy_(self.masters, self.trained)

    def save(self, folder: Path) -> None:
        """A folder that PEFT reads, in bfloat16."""
        weights = get_peft_model_state_dict(self.peft)
        config = self.peft.peft_config["default"]
        config.base_model_name_or_path, config.inference_mode = self.base_name, True
        config.save_pretrained(str(folder))
        kept = {name: value.detach().bfloat16().cpu().contiguous() for name, value in weights.items()}
        save_file(kept, folder / ADAPTER, metadata={"format": "pt"})
