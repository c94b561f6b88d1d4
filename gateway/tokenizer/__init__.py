"""Tokens counted as the vendor counts them, off the event loop, for answers whose upstream reports no usage."""

from .count import TokenCounter
from .encoding import encoding_for

__all__ = ["TokenCounter", "encoding_for"]
