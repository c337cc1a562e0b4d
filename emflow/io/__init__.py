"""The only door to disk: one module per format. Compute modules never import from here."""
