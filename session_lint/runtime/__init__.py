"""What proves findings on a real PostgreSQL. Nothing on the static side imports it."""
