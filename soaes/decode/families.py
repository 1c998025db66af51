"""The families of models that our own decoding runs; torch-free, for checks of a composed job."""

# Values of `model_type`: RMS norms, SwiGLU, rotary positions of whole heads.
NATIVE_FAMILIES = ("qwen2", "qwen3", "llama")
