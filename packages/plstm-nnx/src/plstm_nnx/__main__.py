"""`python -m plstm_nnx check` compares the operations, and a layer around them, with the numpy reference."""
