"""The policy over HTTP, for people and programs that administer it: devices, objects, work, decisions (``/api/v1``).

One rule: every answer has a declared shape, every refusal is ``{"error": ...}`` with a sentence that says what to do.
"""
