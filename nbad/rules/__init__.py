"""The rules: one file per family, each adding rows to the op table and the NumPy functions that lead to them."""
