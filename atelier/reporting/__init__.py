"""One page of all figures (`make report`), and the texts that take their numbers from it."""
