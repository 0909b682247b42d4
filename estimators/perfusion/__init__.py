"""Diffusion weighting: perfusion fraction and diffusivities from b-values."""
