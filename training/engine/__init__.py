"""What every training shares: settings, loop, optimizer, processes, files."""
