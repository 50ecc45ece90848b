"""What the recipes share: data, model, optimizers, the training loop and the files of a run."""
