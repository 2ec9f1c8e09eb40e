"""Readygate: a sidecar that enforces readiness policy in front of LLM providers.

The map of the rooms is proxy/README.md. Nothing is imported here, so that starting
one verb never pays for another.
"""

__version__ = "0.1.0"
