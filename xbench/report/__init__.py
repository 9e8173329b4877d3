"""Tables, notes and exports, built from records alone."""
