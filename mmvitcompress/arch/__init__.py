"""The shapes of (compressed) models: plain data, checked, JSON in and out."""
