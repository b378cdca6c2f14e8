"""Export a tiny checkpoint of each format that is read, and write what becomes of it into docs/inputs.md."""
