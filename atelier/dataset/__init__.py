"""The pictures that Atelier learns from: where they are (`source`) and how they reach training (`loader`)."""
