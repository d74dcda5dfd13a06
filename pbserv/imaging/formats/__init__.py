"""Formats of images, told by their first bytes. Pure: bytes and names in, facts or a FormatError out."""
