//! Outcomes: counters, log lines, the watermark; receipts go back to the source.
