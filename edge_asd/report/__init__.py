"""Pages for people: pictures, sounds and plots of what was heard, in one HTML file that needs nothing else."""
