"""What each device is to do: a pure decision over an immutable snapshot, rendered for the boot loaders."""
