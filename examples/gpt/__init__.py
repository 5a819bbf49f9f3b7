"""GPT in gpugrad: the model, its text, its files, its training and sampling, for the scripts one folder up."""
