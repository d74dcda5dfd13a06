"""The only place with sockets: UDP with packet information, interface facts, GSO, TCP listeners."""
