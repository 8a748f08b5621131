"""What other machines ask, and what is told to them."""
