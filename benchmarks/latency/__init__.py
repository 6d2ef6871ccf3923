"""From the watermark to the alert, with everything running: what is pushed, sent and measured."""
