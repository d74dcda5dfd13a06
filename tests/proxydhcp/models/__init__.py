"""The models of boot clients against captures, and the simulated networks that they boot on."""
