"""Read models: views posted from the log, which can be thrown away and posted again."""
