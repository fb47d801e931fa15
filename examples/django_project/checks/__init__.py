"""Pages that are looked at now and then, and what was seen."""
