"""What to do about what providers do: classes of outcome, the chain walk, and the errors callers see.

Owns three tables (outcome rules, problems, status classes) and one machine (the walk). Knows no socket,
no policy file and no live breaker. Called by ``flow``; ``problems`` also by the hands, to render refusals.
"""
