"""The environments: one canvas, a batch of canvases, and wrappers for other views of them."""
