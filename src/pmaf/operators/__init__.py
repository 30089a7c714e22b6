"""What a solver may ask of a matrix, and the matrices it may ask."""
