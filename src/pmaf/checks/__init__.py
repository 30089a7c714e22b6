"""What is asked of arguments: one function a rule, one message form."""
