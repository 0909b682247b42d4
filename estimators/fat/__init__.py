"""Chemical-shift encoding: water, fat, field and R2* from echoes, and what confounds them."""
