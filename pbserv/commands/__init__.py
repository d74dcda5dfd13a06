"""What the command line does itself, without the server: building the imaging client, installing boot loaders."""
