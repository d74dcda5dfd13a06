"""Configuration: text to entries (grammar), entries to frozen models (model, load), models to documents (reference).

One rule: a key is declared once, in a service's ``config.py``; checks, samples and the reference come from there.
"""
