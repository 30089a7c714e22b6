"""How an answer is differentiated; knows no solver."""
