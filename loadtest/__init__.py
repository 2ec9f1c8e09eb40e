"""Load tests and the bench: drivers that start real processes and measure them from outside.

Owns workloads, drivers and reports. Knows the sidecar only by its command line, its ports and its wire format;
nothing in ``proxy`` imports from here.
"""
