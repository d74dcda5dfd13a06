"""What the tests share: rooms of network namespaces, virtual machines, guest disks, the server process."""
