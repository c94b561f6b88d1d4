"""Pictures, recordings and documents: how large they are by their heads, and what they count for."""
