"""The pages: worklist, study, ranking, labels."""
