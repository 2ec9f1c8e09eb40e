"""The tables detectors are made of: kinds, labels, secret issuers, phone plans. Data only.

Owns every fact about a type; knows nothing of scanning. Each row names its source. Called by the detect package.
"""
