"""What a layer runs without autograd: prepare, solve, measure, and give every item its status."""
