"""Programs whose executable is no Python interpreter: frozen ones, embedding ones; and zip files."""
