"""Destinations for responses: files, webhooks, MQTT brokers and Parquet files."""
