"""What providers let everybody together ask of them in a minute, counted once for all replicas of the gateway."""
