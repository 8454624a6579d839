"""What operators observe: metrics and traces."""
