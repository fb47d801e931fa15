"""All that is on disk: records, history, locks, pool state, TMPDIRs and their permissions."""
