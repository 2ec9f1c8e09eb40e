"""Hand: the providers' side. Dials (aiohttp's connector: DNS, TLS, egress proxies), pools, speaks HTTP/1.1.

Owns upstream connections, their deadlines and the credentials put on the wire. Knows no policy, no chain
and no caller. Called by flow through ``flow.ports.Upstream``.
"""
