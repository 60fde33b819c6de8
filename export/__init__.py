"""How what ships with the package is made: one recipe per product."""
