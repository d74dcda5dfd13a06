"""Policies that another server decides: an imaging server (PrebootServer), or a hook as pixiecore has it."""
