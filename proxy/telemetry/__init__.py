"""Hand: what happened, told to operators. Metrics, log lines and (optionally) traces.

Owns every counter and the log format. Hears events through ``flow.ports.Witness``; decides nothing and
never sees a prompt, a key or a vault.
"""
