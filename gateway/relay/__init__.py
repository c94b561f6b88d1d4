"""What the relay door leads to: the one generic streaming proxy, and the model lists."""
