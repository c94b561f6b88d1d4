"""The ports of the chain, kept in this process: for tests, for single processes, and for layers mounted alone."""

from .channels import MemoryChannelPool
from .ledger import Account, MemoryLedger
from .limiter import MemoryLimiter
from .tokens import MemoryTokens

__all__ = ["Account", "MemoryChannelPool", "MemoryLedger", "MemoryLimiter", "MemoryTokens"]
