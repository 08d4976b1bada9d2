"""Training: losses, lessons, and the one loop."""
