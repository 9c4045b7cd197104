"""LoRA: adapter files read into one normal form, and what they do to the weights of a denoiser."""
