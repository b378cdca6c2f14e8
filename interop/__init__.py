"""What other frameworks load of intaglio: their plug-ins and registrations. Nothing else in the package imports it."""
