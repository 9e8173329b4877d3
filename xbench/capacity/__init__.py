"""The largest that fits: a search by model and verification, trials in isolated children, and what to give up
where something does not fit."""
