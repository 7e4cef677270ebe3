"""The painter: its networks, the adversarial training, and `painter`, which loads generator.h5 and paints."""
