"""Worker processes: one per device, given batches through shared memory."""
