"""Commands that set up sources, destinations and bindings."""
