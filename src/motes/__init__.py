"""Draw, steer and weigh samples from any model, with particles."""
