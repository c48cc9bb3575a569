"""Weights in files: read once, recognised, reconciled, loaded strictly."""
