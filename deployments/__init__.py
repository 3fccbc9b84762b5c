"""One thin shell per stage: replicas, options and lifetime are Ray's; what a stage does is in ``serve_app``."""
