"""The experiments of the paper: what is computed, from which data, and how its parts are kept."""
