"""The papers' protocol in small, live against offline, and learned noise against Wiener."""
