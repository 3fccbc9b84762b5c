"""Access: from a proven identity to a user of a tenant. ``records`` keeps what is known of the three."""
