"""Turns a ruling into what a boot loader reads. One rule: what a device tells about itself never leaves its line."""
