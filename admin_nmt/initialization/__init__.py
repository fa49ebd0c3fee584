"""How a model starts: one file per scheme, and the profile that ADMIN measures."""
