"""What vLLM's server loads from here, by its `--middleware`, in its own environment."""
