"""Training of the joint network: samples, augmentation, crops, losses and the training loop."""
