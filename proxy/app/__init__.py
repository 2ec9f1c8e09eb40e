"""Assembly: builds each object once, joins them, runs them, and takes them down in order.

Owns the settings, the task group and the clock of the process. Every other room is given what it needs here.
"""

from proxy.app.main import App, Started

__all__ = ["App", "Started"]
