"""The pytest plugin, tested as its users meet it."""
