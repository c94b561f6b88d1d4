"""Upstream I/O: everything that owns a socket to an upstream, behind the one port of `port.py`."""

from .router import Upstreams

__all__ = ["Upstreams"]
