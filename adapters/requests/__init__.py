"""From a client's request to the upstream's: its bytes are read and edited in place."""
