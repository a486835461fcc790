"""Feed-forward networks: images, classified by chains of layers that learn in eight ways."""
