"""Files on web servers, and torch's cache of them."""
