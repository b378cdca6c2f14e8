"""The generated parts of the pages: tables and pictures of what was measured."""
