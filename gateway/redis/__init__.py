"""What Redis adds where it is there: limits that count over all processes, and changes seen at once."""

from .changes import Publisher, listen
from .limiter import RedisLimiter
from .metrics import RedisMetrics

__all__ = ["Publisher", "RedisLimiter", "RedisMetrics", "listen"]
