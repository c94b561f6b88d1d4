"""The pure half of channel selection: time and randomness are passed in."""
