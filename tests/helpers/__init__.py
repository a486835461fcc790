"""What several tests share: chains of stages, small files, records of runs that never ran."""
