"""Training of the joint network: losses, samples, crops, the loop."""
