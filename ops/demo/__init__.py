"""The demo: a real retailer's days, from the invoice lines to a report that a shopkeeper understands."""
