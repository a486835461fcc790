"""Two networks on two clocks, joined by a message: the paper's multi-network system."""
