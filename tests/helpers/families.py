"""Tiny random models of many families, each with the structure that sets its family apart."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=256,
    bos_token_id=None,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=False,
)
SLIDING = dict(sliding_window=8, layer_types=["sliding_attention", "full_attention"])
ROTARY = {"rope_type": "default", "rope_theta": 500.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True)

# family -> model type, and what differs from SHAPE
FAMILIES = {
    "Qwen2": ("qwen2", {}),
    "Qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen2, YaRN": ("qwen2", {"rope_parameters": YARN}),
    "Qwen2, sliding window": ("qwen2", {"use_sliding_window": True, **SLIDING}),
    "Qwen3": ("qwen3", {"head_dim": 8}),
    "Qwen3-MoE": ("qwen3_moe", {"head_dim": 8, "num_experts": 4, **EXPERTS}),
    "Llama-3": ("llama", {"rope_parameters": LLAMA3}),
    "Mistral": ("mistral", {"head_dim": 8, "sliding_window": 8}),
    "GLM-4": ("glm4", {"head_dim": 8}),
    "Phi": ("phi", {}),
    "Gemma-2": (
        "gemma2",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": True,
            **SLIDING,
        },
    ),
    "Gemma-3": (
        "gemma3_text",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "tie_word_embeddings": True, **SLIDING},
    ),
    "Cohere": ("cohere", {"logit_scale": 0.25, "tie_word_embeddings": True}),
    "Granite": (
        "granite",
        {
            "logits_scaling": 4.0,
            "residual_multiplier": 0.5,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
        },
    ),
    "DeepSeek-V3": (
        "deepseek_v3",
        {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            **EXPERTS,
        },
    ),
    "Qwen3-Next": (
        "qwen3_next",
        {
            "head_dim": 8,
            "num_experts": 4,
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            **EXPERTS,
        },
    ),
}


def family(name, vocabulary=64, seed=0):
    """A random model whose norms, biases and logits are far from trivial."""
    model_type, changes = FAMILIES[name]
    settings = SHAPE | {"rope_parameters": ROTARY, "vocab_size": vocabulary} | changes
    if model_type == "gemma3_text":  # a rotary embedding for each kind of layer
        kinds = ("sliding_attention", "full_attention")
        settings["rope_parameters"] = {kind: dict(ROTARY) for kind in kinds}
    config = AutoConfig.for_model(model_type, **settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            noise = 0.3 * torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + noise if "norm" in weight_name else noise)
    return model
