"""The part of the bordered solve that lies outside the selected eigenvectors."""
