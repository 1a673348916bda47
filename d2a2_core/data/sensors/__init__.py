"""What cameras make of a true pair of colour and depth."""
