"""Training of the models that ship: from simulated micrographs, on a GPU or, patiently, on a CPU."""
