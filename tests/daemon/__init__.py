"""Process control, with real processes."""
