"""Where the stages meet: pipeline, run folder, command line."""
