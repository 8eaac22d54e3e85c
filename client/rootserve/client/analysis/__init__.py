"""See inside served networks: ask for covariances, keep the results, draw them."""
