"""The engine: one core for image and video diffusion models, behind every door."""
