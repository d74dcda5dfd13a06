"""The HTTP server: API, boot files, image bytes, console. The routers come from the services."""
