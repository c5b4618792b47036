"""What people set up: sources, destinations and bindings, with the rules that the database enforces for them."""
