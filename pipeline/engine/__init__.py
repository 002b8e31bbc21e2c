"""What every stage stands on: tables of parts, stage specs, fingerprints and the runner."""
