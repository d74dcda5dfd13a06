"""The imaging service: images kept safely, moved over HTTP, verified, and never half there."""
