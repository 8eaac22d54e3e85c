"""Side rooms: they are told what happened to requests, and never asked."""
