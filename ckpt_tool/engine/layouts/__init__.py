"""Where everything lies in an output file, one file for each container."""
