"""What a model costs: multiply-accumulates, parameters, milliseconds."""
