"""What goes over the wire: requests in, frames, streams and problems out. The one event model is in ``domain.events``."""
