"""How much a user, a tenant and everybody together may ask for."""
