"""Tiny models of many architectures, from transformers' own configuration classes, with random weights."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 512
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_expand": 2, "mamba_n_groups": 1}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_ROUTED = _EXPERTS | {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}

# By name: model_type, where that is another, and the settings that differ from the common ones.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "biogpt": {},
    "bitnet": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "codegen": _OLD | {"rotary_dim": 4},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 16},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "dff": 64},
    "deepseek_v2": _LATENT | _ROUTED | {"first_k_dense_replace": 1},
    "deepseek_v3": _LATENT | _ROUTED | {"first_k_dense_replace": 1},
    "diffllama": {},
    "doge": {},
    "ernie4_5": {},
    "exaone4": {"sliding_window": 16, "sliding_window_pattern": 2},
    "falcon": {},
    "falcon_alibi": {"model_type": "falcon", "alibi": True},
    "falcon_h1": _MAMBA | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5},
    "falcon_mamba": {"state_size": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 5.0, "sliding_window": 16},
    "gemma3n_text": {
        "head_dim": 8,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma3_text": {"head_dim": 8, "sliding_window": 16},
    "gemma4_text": {
        "head_dim": 8,
        "global_head_dim": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "glm4_moe": _ROUTED | {"head_dim": 8, "first_k_dense_replace": 1},
    "gpt2": _OLD,
    "gpt_bigcode": _OLD,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gpt_neox": {},
    "gpt_oss": _EXPERTS | {"head_dim": 8, "sliding_window": 16},
    "gptj": _OLD | {"rotary_dim": 4},
    "granite": {"logits_scaling": 4.0},
    "granitemoe": _EXPERTS | {"logits_scaling": 4.0},
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "jamba": _EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "jetmoe": {"kv_channels": 8, "num_local_experts": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "llama": {},
    "llama4_text": _EXPERTS | {"head_dim": 8, "intermediate_size_mlp": 64, "attention_chunk_size": 16},
    "llama_dynamic": {"model_type": "llama", "rope_parameters": _DYNAMIC},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "expand": 2},
    "minicpm3": _LATENT,
    "minimax": _EXPERTS | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
    "ministral": {"head_dim": 8, "sliding_window": 16},
    "mistral": {"sliding_window": None},
    "mistral_window": {"model_type": "mistral", "sliding_window": 16},
    "mixtral": _EXPERTS,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 16},
    "olmoe": _EXPERTS,
    "openai-gpt": _OLD,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {"sliding_window": None},
    "phi3_longrope": {"model_type": "phi3", "sliding_window": None, "rope_parameters": _LONG},
    "phimoe": _EXPERTS,
    "qwen2": {},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": _EXPERTS | {"head_dim": 8},
    "qwen3_next": _EXPERTS
    | {
        "head_dim": 8,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 16, "num_hidden_layers": 3},
    "rwkv": {"attention_hidden_size": 32},
    "seed_oss": {"head_dim": 8},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
    "gemma3": {
        "text_config": _COMMON | {"head_dim": 8, "sliding_window": 16},
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
    },
}


def tiny_of(name: str, **changes: Any) -> PreTrainedModel:
    """The architecture's tiny model, in float32."""
    own = ARCHITECTURES[name] | changes
    model_type = own.pop("model_type", name)
    torch.manual_seed(0)
    settings = own if "text_config" in own else _COMMON | own
    config = AutoConfig.for_model(model_type, **settings)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
