"""An upstream's answer, read as it passes: its framing, its content, its usage, its end and its errors."""
