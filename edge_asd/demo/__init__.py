"""A machine for those who have none at hand: simulated slide rails, sound and faulty, in a simulated factory."""
