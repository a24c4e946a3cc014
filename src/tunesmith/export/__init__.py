"""From a trained run to files that others load: merged weights in the layout of the ecosystem."""
