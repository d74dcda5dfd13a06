"""Real boot loaders that ask the real server what their machine is to do."""
