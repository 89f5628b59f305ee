"""The command to go on with, tried in memory before it is proposed."""
