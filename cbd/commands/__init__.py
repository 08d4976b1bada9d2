"""What the commands do with a user's own folders: init, chain, eval, reproduce."""
