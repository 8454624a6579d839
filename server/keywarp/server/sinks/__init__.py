"""Where results go besides to the client: files, webhooks, MQTT, Parquet."""
