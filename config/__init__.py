"""How a process is set up: settings, logging and the queue. Imports nothing else of the project."""
