"""What the user calls: check → choose a solver → differentiate → answer."""
