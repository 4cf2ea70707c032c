"""`make gpu-check`: what a machine with a GPU is asked, stage by stage, and how its answers are kept."""
