"""What happened to each device, step by step."""
