"""From a reading to those who want to know: log, MQTT, Prometheus."""
