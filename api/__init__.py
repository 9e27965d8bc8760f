"""The window: HTTP in, commands out; read models in, documents out."""
